"""What a verification found, and what of it goes on record."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata

from quantpress.manifest import VerificationRecord
from quantpress.resolution import Resolved
from quantpress.toolchain.llama_cpp import planned_version


@dataclass(frozen=True)
class Checked:
    """One file of a published revision; ``problem`` is empty where it is what the manifest and the Hub say."""

    path: str
    size: int
    problem: str


@dataclass(frozen=True)
class Spoken:
    """What a variant wrote when it was loaded from the download; ``problem`` is empty where it wrote text."""

    variant: str
    text: str
    problem: str


@dataclass(frozen=True)
class Verification:
    """What became of a revision's files, of those of its variants that were loaded, and of the tags that clients ask
    for.

    ``commit`` is the one that was read, ``reference`` what the files were compared with; ``problem`` is what is wrong
    with the revision as a whole, empty if nothing.
    """

    files: list[Checked] = field(default_factory=list)
    variants: list[Spoken] = field(default_factory=list)
    resolved: list[Resolved] = field(default_factory=list)
    commit: str = ""
    reference: str = "the manifest"
    problem: str = ""

    @property
    def problems(self) -> list[str]:
        """Everything that is wrong, in one line each."""
        whole = [self.problem] if self.problem else []
        files = [f"{file.path} {file.problem}" for file in self.files if file.problem]
        spoken = [f"{spoken.variant} {spoken.problem}" for spoken in self.variants if spoken.problem]
        return whole + files + spoken + [f"{each.client} {each.problem}" for each in self.resolved if each.problem]

    def record(self) -> VerificationRecord:
        """What the manifest keeps of it."""
        return VerificationRecord(
            at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            commit=self.commit,
            files=len(self.files),
            bytes=sum(file.size for file in self.files),
            loaded=[spoken.variant for spoken in self.variants],
            resolved=[f"{each.client} {each.tag}: {each.path}" for each in self.resolved],
            notes=[f"{each.client} {each.note}" for each in self.resolved if each.note],
            versions={"huggingface_hub": metadata.version("huggingface_hub"), "llama.cpp": planned_version()},
            problems=self.problems,
        )
