"""The results of a verification (the check of a fresh download), and the part of them that the manifest keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata

from quantpress.record.clients import Resolved
from quantpress.record.manifest import VerificationRecord


@dataclass(frozen=True)
class VerifiedFile:
    """One file of a published revision.

    ``problem`` is empty if the file is as the manifest and the Hub say. ``variant`` is the variant that the file
    belongs to, or empty if the file belongs to none.
    """

    path: str
    size: int
    problem: str
    variant: str = ""


@dataclass(frozen=True)
class Spoken:
    """The text that a variant wrote after it was loaded from the download.

    ``problem`` is empty if the variant wrote text. If a program could not load the variant, ``detail`` is the program's
    message.
    """

    variant: str
    text: str
    problem: str
    detail: str = ""

    @property
    def failure(self) -> str:
        """The problem and its detail. Empty if there is no problem."""
        return f"{self.problem}: {self.detail}" if self.detail else self.problem


@dataclass(frozen=True)
class Verification:
    """The results of verifying one revision: its files, the variants that were loaded, and the tags that clients ask
    for.

    ``commit`` is the commit that was read. ``reference`` names what the files were compared with. ``problem`` says what
    is wrong with the revision as a whole. It is empty if nothing is wrong.
    """

    files: list[VerifiedFile] = field(default_factory=list)
    variants: list[Spoken] = field(default_factory=list)
    resolved: list[Resolved] = field(default_factory=list)
    commit: str = ""
    reference: str = "the manifest"
    problem: str = ""

    @property
    def problems(self) -> list[str]:
        """All problems in words, for the person who ran the verification."""
        whole = [self.problem] if self.problem else []
        files = [f"{file.path} {file.problem}" for file in self.files if file.problem]
        spoken = [f"{spoken.variant} {spoken.failure}" for spoken in self.variants if spoken.problem]
        return whole + files + spoken + [f"{each.client} {each.problem}" for each in self.resolved if each.problem]

    @property
    def faults(self) -> dict[str, list[str]]:
        """A dict from a variant to its faults in words, for the manifest and the card. Faults that concern no single
        variant are listed under the empty name.

        The same fault always has the same words. The words leave out ``detail``, because it could reveal something
        about this machine.
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
        """Returns the record for the manifest. ``llama_cpp`` is the version of the llama.cpp that loaded GGUF files."""
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
