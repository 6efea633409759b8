"""What a verification found, and which part of it goes on record."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata

from quantpress.record.clients import Resolved
from quantpress.record.manifest import VerificationRecord


@dataclass(frozen=True)
class VerifiedFile:
    """One file of a published revision. ``problem`` is empty if the file is what the manifest and the Hub say.
    ``variant`` is the variant that the file belongs to, empty if there is none."""

    path: str
    size: int
    problem: str
    variant: str = ""


@dataclass(frozen=True)
class Spoken:
    """What a variant wrote when it was loaded from the download. ``problem`` is empty if it wrote text. ``detail`` is
    the message of the program that could not load it."""

    variant: str
    text: str
    problem: str
    detail: str = ""

    @property
    def failure(self) -> str:
        """The problem with its detail; empty if there is no problem."""
        return f"{self.problem}: {self.detail}" if self.detail else self.problem


@dataclass(frozen=True)
class Verification:
    """The results for a revision's files, for the variants that were loaded, and for the tags that clients ask for.

    ``commit`` is the commit that was read. ``reference`` is what the files were compared with. ``problem`` is what is
    wrong with the revision as a whole, empty if nothing.
    """

    files: list[VerifiedFile] = field(default_factory=list)
    variants: list[Spoken] = field(default_factory=list)
    resolved: list[Resolved] = field(default_factory=list)
    commit: str = ""
    reference: str = "the manifest"
    problem: str = ""

    @property
    def problems(self) -> list[str]:
        """Everything that is wrong, for the person who ran the verification."""
        whole = [self.problem] if self.problem else []
        files = [f"{file.path} {file.problem}" for file in self.files if file.problem]
        spoken = [f"{spoken.variant} {spoken.failure}" for spoken in self.variants if spoken.problem]
        return whole + files + spoken + [f"{each.client} {each.problem}" for each in self.resolved if each.problem]

    @property
    def faults(self) -> dict[str, list[str]]:
        """What is wrong with each variant, for the manifest and the card. The empty name has the faults that concern no
        single variant.

        The words stay the same as long as the fault does. They leave out ``detail``, so that they tell nothing about
        this machine.
        """
        names = {file.variant for file in self.files}
        found = [
            *([("", self.problem)] if self.problem else []),
            *((file.variant, f"{file.path} {file.problem}") for file in self.files if file.problem),
            *((spoken.variant, spoken.problem) for spoken in self.variants if spoken.problem),
            *(
                (each.tag if each.tag in names else "", f"{each.client} {each.problem}")
                for each in self.resolved
                if each.problem
            ),
        ]
        return {name: [fault for own, fault in found if own == name] for name in dict.fromkeys(own for own, _ in found)}

    def record(self, llama_cpp: str) -> VerificationRecord:
        """Returns what the manifest keeps. ``llama_cpp`` is the version that loaded GGUF files."""
        return VerificationRecord(
            at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            commit=self.commit,
            files=len(self.files),
            bytes=sum(file.size for file in self.files),
            loaded=[spoken.variant for spoken in self.variants],
            resolved=[f"{each.client} {each.tag}: {each.path}" for each in self.resolved],
            notes=[f"{each.client} {each.note}" for each in self.resolved if each.note],
            versions={"huggingface_hub": metadata.version("huggingface_hub"), "llama.cpp": llama_cpp},
            problems=[f"{name} {fault}".strip() for name, faults in self.faults.items() for fault in faults],
        )
