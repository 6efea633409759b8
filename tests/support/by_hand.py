"""A press by hand: composes and publishes a format's commits as a press does, but quantizes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi

from quantpress.card.context import CardContext
from quantpress.plan.steps import FormatPlan
from quantpress.press.compose import CommitContent, compose_commits, compose_manifest
from quantpress.publish.commit import BranchCommit, publish_format
from quantpress.record.manifest import Entry, File, Manifest, SourceRecord, parse_manifest
from quantpress.record.shelf import Shelf, read_shelf
from tests.support import samples

MODEL = "SmolLM2-135M-Instruct"


def content(path: str) -> bytes:
    return f"the bytes of {path}".encode()


@dataclass(frozen=True)
class HandPress:
    """Publishes to one repo. The files lie in ``folder`` before they are published."""

    api: HfApi
    folder: Path
    repo_id: str

    def read(self) -> Shelf:
        return read_shelf(self.api, self.repo_id)

    def compose(self, shelf: Shelf, entries: Sequence[Entry], source: SourceRecord | None = None) -> list[BranchCommit]:
        """Returns the commits of a press that made ``entries`` for a repo that holds what ``shelf`` says."""
        source = source or samples.source()
        made = [self._made(entry, source) for entry in entries]
        plan = FormatPlan(entries[0].recipe.format, shelf, (), ())
        folders = {entry.variant: self.folder for entry in made}
        content = CommitContent(made, [], folders, [], [samples.evaluation(16.1)], {})
        manifest = compose_manifest(plan, MODEL, source, content, [])
        context = CardContext(repo_id=self.repo_id, quantized_by="press")
        return compose_commits(plan, manifest, content, [], context)

    def publish(
        self,
        entries: Sequence[Entry],
        message: str,
        shelf: Shelf | None = None,
        source: SourceRecord | None = None,
    ) -> dict[str, str]:
        """Composes and commits. ``shelf`` says what the repo held earlier. Without it, the repo is read now."""
        shelf = shelf or self.read()
        source = source or samples.source()
        commits = self.compose(shelf, entries, source)
        return publish_format(self.api, shelf, commits, source, False, message)

    def _made(self, entry: Entry, source: SourceRecord) -> Entry:
        """Returns the entry as if made from ``source``, and writes its files to the folder."""
        files = []
        for file in entry.artifact.files:
            data = content(file.path)
            (self.folder / file.path).write_bytes(data)
            files.append(File(path=file.path, size=len(data), sha256=hashlib.sha256(data).hexdigest()))
        recipe = entry.recipe.model_copy(update={"source_sha": source.sha})
        artifact = entry.artifact.model_copy(update={"files": files})
        return entry.model_copy(update={"recipe": recipe, "fingerprint": recipe.fingerprint, "artifact": artifact})

    def files(self, revision: str = "main") -> list[str]:
        return self.api.list_repo_files(self.repo_id, revision=revision)

    def titles(self, branch: str = "main") -> list[str]:
        return [commit.title for commit in self.api.list_repo_commits(self.repo_id, revision=branch)]

    def head(self, revision: str = "main") -> str:
        return self.api.list_repo_commits(self.repo_id, revision=revision)[0].commit_id

    def text(self, path: str, revision: str = "main") -> str:
        return Path(self.api.hf_hub_download(self.repo_id, path, revision=self.head(revision))).read_text()

    def manifest(self, revision: str = "main") -> Manifest:
        return parse_manifest(self.text("quantpress.json", revision), revision)
