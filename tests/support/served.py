"""A repository on an embedded Hub. The tests put its content there file by file."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from quantpress.files import sha256_of
from quantpress.record.manifest import Entry, File
from quantpress.record.verification import Verification
from quantpress.verify.loading import Loader
from quantpress.verify.verify import verify
from tests.support import samples

REPO = "press/Tiny-GGUF"
CARD = b"# Tiny\n"


def sums(content: dict[str, bytes]) -> bytes:
    """Returns what sha256sum would write."""
    return "".join(f"{hashlib.sha256(data).hexdigest()}  {path}\n" for path, data in sorted(content.items())).encode()


@dataclass(frozen=True)
class ServedRepo:
    api: HfApi
    folder: Path
    good: Path
    small: Path
    root: Path
    token: str

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def publish(self, *entries: Entry, branch: str = "main", **files: Path) -> str:
        """Publishes these entries on a branch. ``files`` gives each variant's file. Returns the commit."""
        manifest = samples.gguf(entries=list(entries), shared=[]).to_json().encode()
        content = {"README.md": CARD, "quantpress.json": manifest}
        content |= {f"Tiny-{variant}.gguf": file.read_bytes() for variant, file in files.items()}
        content["SHA256SUMS"] = sums(content)
        return self.put(content, branch)

    def put(self, content: dict[str, bytes], branch: str = "main") -> str:
        """Makes a commit after which the branch holds only this content. Returns the commit."""
        self.api.create_repo(REPO, exist_ok=True)
        self.api.create_branch(REPO, branch=branch, exist_ok=True)
        old = set(self.api.list_repo_files(REPO, revision=branch)) - set(content) - {".gitattributes"}
        operations: list[CommitOperationAdd | CommitOperationDelete] = [CommitOperationDelete(name) for name in old]
        operations += [CommitOperationAdd(name, data) for name, data in content.items()]
        return self.api.create_commit(REPO, operations, commit_message="test", revision=branch).oid

    def verify(self, revision: str = "main", *, repo: str = REPO, only: Collection[str] | None = None) -> Verification:
        return verify(self.api, repo, revision, Loader("cpu", 2, only), self.home)

    def entry(self, variant: str, file: Path, sample: str | None = None) -> Entry:
        """Returns an entry that describes ``file`` correctly."""
        found = samples.entry("gguf", variant, bits=16.0, divergence=0.001)
        listed = File(path=f"Tiny-{variant}.gguf", size=file.stat().st_size, sha256=sha256_of(file))
        return found.model_copy(
            update={
                "artifact": found.artifact.model_copy(update={"files": [listed]}),
                "evaluation": found.evaluation.model_copy(update={"sample": sample}),
            }
        )
