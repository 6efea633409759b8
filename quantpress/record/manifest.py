"""The manifest, ``quantpress.json``: what a published revision says about itself.

A press (a run of quantpress that makes variants) commits the manifest together with the files that the manifest
describes. Each later run reads the manifest back, so the Hub is the memory of quantpress. The manifest on ``main`` has
an entry for every variant of the repo. The manifest on another branch has only the entry of this branch's variant.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from quantpress.errors import Unreadable
from quantpress.record.base import Record
from quantpress.record.bounds import FilePath, Finite, FormatName, Name, PathPart, Repo, Sha256, Size, Values
from quantpress.record.measurement import Evaluation
from quantpress.record.recipe import Recipe
from quantpress.text import one_line

MANIFEST_FILE = "quantpress.json"
#: The key of an artifact's details that says how the source's weights were stored, if they were quantized already.
SOURCE_WEIGHTS = "source_weights"


class File(Record):
    """A published file. ``path`` is its path in the repo, ``size`` is in bytes, ``sha256`` is in hex."""

    path: FilePath
    size: Size
    sha256: Sha256


class Artifact(Record):
    """The files of one variant, and what these files really contain (see :class:`quantizers.protocol.Output`)."""

    files: Annotated[list[File], Field(min_length=1)]
    bits_per_weight: Finite
    tensor_types: dict[Name, Size]
    details: Values = {}

    @property
    def size(self) -> int:
        """The size of all files together, in bytes."""
        return sum(file.size for file in self.files)


class Verdict(Record):
    """The verdict of the quality gate on a variant. ``reasons`` has a reason in words for each failed check.

    ``max_divergence`` is the limit that the gate applied to the mean KL divergence, or None if there was no limit.
    ``notes`` say why this limit differs from the default.
    """

    passed: bool
    reasons: list[str] = []
    max_divergence: float | None = None
    notes: list[str] = []


class Entry(Record):
    """One variant in the manifest.

    If ``status`` is ``withheld``, the variant was measured but not published, and ``verdict`` says why. If it is
    ``retracted``, the variant was published and then withdrawn: its files have left the branch, and ``retraction`` says
    why. ``retraction`` stays if the variant is made again and then withheld.

    ``verified`` is the commit at which the variant was verified: a fresh download had the variant's files, and the
    variant loaded. The variant also wrote text, if it wrote text when it was measured. ``verified`` is None before the
    first verification and after a verification that found faults. ``problems`` lists the faults that the last
    verification found.
    """

    recipe: Recipe
    fingerprint: Sha256
    branch: Name
    status: Literal["published", "withheld", "retracted"]
    retraction: str | None = None
    artifact: Artifact
    evaluation: Evaluation
    verdict: Verdict
    seconds: Finite
    peak_memory_bytes: Size
    peak_device_memory_bytes: Size | None = None
    verified: Name | None = None
    problems: list[str] = []

    @property
    def variant(self) -> str:
        return self.recipe.variant


class Alias(Record):
    """A variant that was not made, because it would hold the same weights in the same types as the variant
    ``same_as``."""

    recipe: Recipe
    fingerprint: Sha256
    same_as: Name

    @property
    def variant(self) -> str:
        return self.recipe.variant


class SourceRecord(Record):
    """The upstream repo at one commit, with the metadata that the model card inherits from it.

    ``files`` is a dict from path to hash. It holds the files that a press reads, with a hash of their content (SHA-256
    for LFS files, git's SHA-1 for others). From these hashes, the next plan sees what a new commit changed. ``files``
    is empty in manifests that are older than this field. ``gated`` says how access to the repo is gated, or is None if
    it is not gated. ``gate_fields`` are the ``extra_gated_…`` fields of the repo's card. ``licence_override`` is the
    catalog's reason to publish although the licence seems to forbid it.
    """

    repo: Repo
    sha: PathPart
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
    """An earlier state of a branch, from before the source changed.

    ``tag`` is the tag that keeps this state (``v1`` on ``main``, ``v1-BRANCH`` on another branch). ``source`` is the
    source of this state. ``changed`` lists the files that are different in the source of the next state.
    """

    tag: Name
    source: SourceRecord
    changed: list[str]


class VerificationRecord(Record):
    """What a verification checked after publishing, on a fresh download of ``commit``.

    ``loaded`` are the variants that the verification tried to load. ``resolved`` says which file each client chooses
    when users give the client a name (Q4_K_M in ``repo:Q4_K_M``). ``notes`` are what users of a client should know.
    ``versions`` is a dict from a client's name to its version.
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
    """The content of ``quantpress.json``. ``baselines`` are the unquantized model's figures, one evaluation per engine.

    ``shared`` are files of the repo that belong to no single variant (an imatrix, a plot). ``toolchain`` maps a tool's
    name to its version. ``flags`` maps a variant to what a reader should know about it: that it is worse than a variant
    with fewer bits, or that it was made from an earlier commit of the source. ``earlier`` are the earlier states of the
    branch, which tags keep. ``card`` is the fingerprint of the templates that made the cards. ``verification`` is the
    record of the last verification.
    """

    schema_version: Literal[1] = 1
    format: FormatName
    model_name: PathPart
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
        """Returns the entry of a variant, or None if there is none."""
        return next((entry for entry in self.entries if entry.variant == variant), None)

    def published(self, branch: str | None = None) -> list[Entry]:
        """Returns the published entries of ``branch``, or of all branches if ``branch`` is None."""
        return [entry for entry in self.entries if entry.status == "published" and branch in (None, entry.branch)]

    def files(self, branch: str) -> list[File]:
        """Returns a branch's files: the shared files and the files of its published variants. Omits card, manifest and
        sums."""
        return [*self.shared, *(file for entry in self.published(branch) for file in entry.artifact.files)]

    def gone(self, before: Manifest | None, branch: str) -> frozenset[str]:
        """Returns the paths on ``branch`` that ``before`` lists and this manifest does not.

        ``before`` is the manifest that this one replaces.
        """
        old = before.files(branch) if before else []
        return frozenset(file.path for file in old) - {file.path for file in self.files(branch)}

    def to_json(self) -> str:
        return self.model_dump_json(indent=2) + "\n"


def parse_manifest(text: str | bytes, where: str) -> Manifest:
    """Reads a manifest. ``where`` names the repo in the error.

    Raises :class:`Unreadable` if ``text`` is not a manifest of this version.
    """
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = one_line(".".join(str(part) for part in first["loc"]))
        raise Unreadable(
            f"{where}: {MANIFEST_FILE} is not a manifest of this version ({place}: {first['msg']}); "
            "rename or delete the repo, then press the model again"
        ) from None
