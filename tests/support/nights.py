"""Nights by hand: composes and commits what a plan asks for, as a press does, but quantizes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from quantpress.card.context import CardContext
from quantpress.evaluation.protocol import current_protocol
from quantpress.plan.steps import FormatPlan, ModelPlan, VariantPlan
from quantpress.press.compose import CommitContent, adopted, compose_commits, compose_manifest
from quantpress.publish.commit import BranchCommit, ensure_repo, publish
from quantpress.record.manifest import Alias, Entry, File, Manifest, SourceRecord, Verdict, parse_manifest
from quantpress.record.names import model_name
from quantpress.record.shelf import read_shelf
from quantpress.settings import Settings
from tests.support import samples
from tests.support.planned import Press


@dataclass(frozen=True)
class Night:
    """The night of one model in one format, with the plan that was made when the night began. Files lie in ``folder``
    before they are published."""

    api: HfApi
    folder: Path
    model: ModelPlan

    @property
    def plan(self) -> FormatPlan:
        (plan,) = self.model.formats
        return plan

    @property
    def source(self) -> SourceRecord:
        assert self.model.source is not None
        return self.model.source.record

    def planned(self, variant: str) -> VariantPlan:
        return next(each for each in self.plan.variants if each.variant.name == variant)

    def entry(self, variant: str, **changes: Any) -> Entry:
        """Returns the entry of a variant that was just made and measured under the plan's protocol. Writes its file."""
        assert self.model.source is not None and self.model.texts is not None
        planned = self.planned(variant)
        sample = samples.entry("gguf", variant, bits=8.5, divergence=0.001)
        name = f"{model_name(self.source.repo)}-{variant}.gguf" if self.plan.format == "gguf" else "model.safetensors"
        text = f"{variant} of {self.source.sha}".encode()
        file = File(path=name, size=len(text), sha256=hashlib.sha256(text).hexdigest())
        (self.folder / variant).mkdir(exist_ok=True)
        (self.folder / variant / name).write_bytes(text)
        protocol = current_protocol(self.model.source, Settings(home=self.folder), self.model.texts.evaluation)
        own = {
            "recipe": planned.recipe,
            "fingerprint": planned.recipe.fingerprint,
            "branch": planned.variant.branch,
            "artifact": sample.artifact.model_copy(update={"files": [file]}),
            "evaluation": sample.evaluation.model_copy(update={"protocol": protocol}),
        }
        return sample.model_copy(update=own | changes)

    def withheld(self, variant: str, reason: str) -> Entry:
        return self.entry(variant, status="withheld", verdict=Verdict(passed=False, reasons=[reason]))

    def press(
        self,
        *entries: Entry,
        aliases: Sequence[Alias] = (),
        verified: Mapping[str, str] | None = None,
        killed_after: str | None = None,
    ) -> Manifest:
        """Commits what was made, and what was verified since the last commit. Returns the manifest of ``main``.

        With ``killed_after``, the press is killed after it committed that branch, and commits no other.
        """
        folders = {entry.variant: self.folder / entry.variant for entry in entries}
        content = CommitContent(list(entries), list(aliases), folders, [], [samples.evaluation(16.1)], {})
        return self._commit(replace(content, verified=verified or {}), killed_after)

    def cards(self, verified: Mapping[str, str] | None = None) -> Manifest:
        """Commits cards and manifest alone, as a press does."""
        content = adopted(self._now(), ())
        assert content is not None
        return self._commit(replace(content, verified=verified or {}), None)

    def _now(self) -> FormatPlan:
        return replace(self.plan, shelf=read_shelf(self.api, self.plan.repo_id))

    def _commit(self, content: CommitContent, killed_after: str | None) -> Manifest:
        ensure_repo(self.api, self.plan.repo_id, False)
        now = self._now()
        manifest = compose_manifest(now, model_name(self.source.repo), self.source, content, [])
        context = CardContext(repo_id=self.plan.repo_id, quantized_by="press")
        for commit in compose_commits(now, manifest, content, [], context):
            self._publish(commit, now)
            if commit.branch == killed_after:
                break
        return manifest

    def _publish(self, commit: BranchCommit, now: FormatPlan) -> None:
        publish(self.api, self.plan.repo_id, commit, now.shelf.heads, "press")


def night(press: Press, line: dict[str, Any], folder: Path, **catalog: Any) -> Night:
    """Plans the night of a catalog with one line, of one format."""
    (plan,) = press.plan(line, **catalog)
    return Night(press.api, folder, plan)


def manifest(press: Press, repo_id: str, folder: Path, revision: str = "main") -> Manifest:
    return parse_manifest(_download(press, repo_id, "quantpress.json", folder, revision).read_bytes(), repo_id)


def card(press: Press, repo_id: str, folder: Path, revision: str = "main") -> str:
    return _download(press, repo_id, "README.md", folder, revision).read_text()


def _download(press: Press, repo_id: str, name: str, folder: Path, revision: str) -> Path:
    return Path(press.api.hf_hub_download(repo_id, name, revision=revision, cache_dir=folder / "look"))
