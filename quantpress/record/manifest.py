"""The manifest, ``quantpress.json``: what a published revision says of itself.

It is written in the same commit as the files it describes and read back at each run: the Hub is the memory.
``main`` carries an entry for every variant of the repo; a branch carries the entry of its own variant.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ValidationError

from quantpress.errors import Unreadable
from quantpress.record.base import Record
from quantpress.record.measurement import Evaluation
from quantpress.record.recipe import Recipe

MANIFEST_FILE = "quantpress.json"


class File(Record):
    """A published file: path in the repo, size in bytes, hex SHA-256."""

    path: str
    size: int
    sha256: str


class Artifact(Record):
    """The files of one variant and what is really in them (see :class:`quantizers.protocol.Output`)."""

    files: list[File]
    bits_per_weight: float
    tensor_types: dict[str, int]
    details: dict[str, Any] = {}

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


class Verdict(Record):
    """What the gate said: ``passed``, and for each failed check the reason in words.

    ``max_divergence`` is the limit of the mean KL divergence that was applied, if any; ``notes`` say why it is not
    the default.
    """

    passed: bool
    reasons: list[str] = []
    max_divergence: float | None = None
    notes: list[str] = []


class Entry(Record):
    """One variant in the manifest. ``status`` ``withheld`` means measured, not published; see ``verdict``.

    ``retracted`` means that it was published and withdrawn: its files have left the branch, and ``retraction`` says
    why, also of a variant that was made anew since and withheld. ``verified`` is the commit from which its files were
    downloaded afresh, found to be these, loaded and made to write text; None until then. ``problems`` are what was
    wrong when that was last tried.
    """

    recipe: Recipe
    fingerprint: str
    branch: str
    status: Literal["published", "withheld", "retracted"]
    retraction: str | None = None
    artifact: Artifact
    evaluation: Evaluation
    verdict: Verdict
    seconds: float
    peak_memory_bytes: int
    peak_device_memory_bytes: int | None = None
    verified: str | None = None
    problems: list[str] = []

    @property
    def variant(self) -> str:
        return self.recipe.variant


class Alias(Record):
    """A variant that would hold the same weights in the same types as ``same_as``, and was not made."""

    recipe: Recipe
    fingerprint: str
    same_as: str

    @property
    def variant(self) -> str:
        return self.recipe.variant


class SourceRecord(Record):
    """The upstream repo at one commit, with what the card inherits from it.

    ``files`` maps the files that the press reads to a hash of their content (SHA-256 of LFS files, git's SHA-1 of the
    others): from it the next plan sees what a new commit changed. Empty in manifests from before it was recorded.
    ``gated`` is how the repo is gated, ``gate_fields`` are its card's ``extra_gated_…`` fields. ``licence_override`` is
    the catalog's reason to publish although the licence seems to forbid it.
    """

    repo: str
    sha: str
    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    language: list[str] = []
    pipeline_tag: str | None = None
    tags: list[str] = []
    files: dict[str, str] = {}
    gated: Literal["auto", "manual"] | None = None
    gate_fields: dict[str, Any] = {}
    licence_override: str | None = None


class Earlier(Record):
    """What a branch held before the source moved: the tag that keeps it (``v1`` of ``main``, ``v1-BRANCH`` of another),
    its source, and the files that the source's next commit changed."""

    tag: str
    source: SourceRecord
    changed: list[str]


class VerificationRecord(Record):
    """What was checked after publishing, on what was downloaded afresh from ``commit``.

    ``loaded`` are the variants that were loaded and wrote text; ``resolved`` says of each client and tag which file it
    takes; ``notes`` are what users of a client should know; ``versions`` are those of the clients.
    """

    at: str
    commit: str
    files: int
    bytes: int
    loaded: list[str]
    resolved: list[str]
    notes: list[str]
    versions: dict[str, str]
    problems: list[str]


class Manifest(Record):
    """``quantpress.json``. ``baselines`` are the unquantized model's figures, one per engine.

    ``shared`` are files of the repo that belong to no single variant (an imatrix, a plot).
    ``toolchain`` maps a tool's name to its version. ``flags`` say of a variant what its figures show beside those
    of the others: that it is worse than one with fewer bits. ``earlier`` are the branch's states that tags keep.
    ``card`` is the fingerprint of the templates that the cards were made by, ``verification`` what the last download
    after publishing showed.
    """

    schema_version: Literal[1] = 1
    format: str
    model_name: str
    source: SourceRecord
    toolchain: dict[str, str]
    baselines: list[Evaluation]
    entries: list[Entry]
    aliases: list[Alias] = []
    shared: list[File] = []
    flags: dict[str, str] = {}
    earlier: list[Earlier] = []
    card: str = ""
    verification: VerificationRecord | None = None

    def entry(self, variant: str) -> Entry | None:
        """The entry of a variant, if there is one."""
        return next((entry for entry in self.entries if entry.variant == variant), None)

    def published(self, branch: str | None = None) -> list[Entry]:
        """Published entries, of one branch or of all."""
        return [entry for entry in self.entries if entry.status == "published" and branch in (None, entry.branch)]

    def files(self, branch: str) -> list[File]:
        """What is on a branch beside card, manifest and sums: the files of its published variants, and the shared."""
        return [*self.shared, *(file for entry in self.published(branch) for file in entry.artifact.files)]

    def gone(self, before: Manifest | None, branch: str) -> frozenset[str]:
        """Paths that ``before``, the manifest that this one replaces on a branch, listed and this one does not."""
        old = before.files(branch) if before else []
        return frozenset(file.path for file in old) - {file.path for file in self.files(branch)}

    def to_json(self) -> str:
        return self.model_dump_json(indent=2) + "\n"


def parse_manifest(text: str | bytes, where: str) -> Manifest:
    """Reads a manifest. ``where`` names the repo in the error. Raises :class:`Unreadable` if it is not one."""
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise Unreadable(
            f"{where}: {MANIFEST_FILE} is not a manifest of this version ({place}: {first['msg']}); "
            "rename or delete the repo to press it anew"
        ) from None
