"""The one protocol behind which every format stands.

A quantizer object is cheap: importing its module imports neither torch nor transformers. The methods
``check``, ``prepare``, ``quantize`` and ``refresh`` run in a child process (``python -m quantizers.job``), which reads
a :class:`Job` as JSON and writes a :class:`Result` as JSON; everything heavy is imported inside them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Protocol

from quantpress.record.base import Record
from quantpress.record.measurement import Engine

#: Parameters of a variant: JSON values that go into the recipe's fingerprint.
Parameters = dict[str, Any]


class Variant(Record):
    """One quantized output of a format.

    ``branch`` is where it is published (``main`` or a branch's name). ``nominal_bits`` are the bits per weight
    that the name promises; they serve the plan's estimates and are no part of the recipe. The plan blocks one that
    ``needs_cuda`` on a machine without a GPU, or whose GPUs have less than the ``compute_capability`` that it needs.
    """

    format: str
    name: str
    branch: str = "main"
    parameters: Parameters = {}
    nominal_bits: float = 16.0
    needs_cuda: bool = False
    compute_capability: float | None = None


class CalibrationText(Record):
    """The text a quantizer calibrates on, and how much of it: ``samples`` windows of ``length`` tokens."""

    name: str
    path: Path
    sha256: str
    samples: int
    length: int


class Job(Record):
    """What a child process is asked to do.

    ``source`` holds the unquantized model (config.json, safetensors, tokenizer). ``prepared`` is the folder
    that ``prepare`` fills once for all variants of a format (an F16 GGUF and its imatrix, say) and that
    ``quantize`` only reads. ``out`` is an empty folder for the variant's files; formats whose files can be split split
    those of more than ``split_above`` bytes. ``published`` holds published files: those that ``refresh`` gives new
    metadata; for ``prepare``, costly shared files that were made from another commit of the source and are kept as they
    are, where nothing is quantized by them.
    """

    step: Literal["check", "prepare", "quantize", "refresh"]
    variant: Variant
    model_name: str
    source: Path
    prepared: Path
    out: Path
    calibration: CalibrationText
    threads: int
    device: Literal["cpu", "cuda"]
    split_above: int | None = None
    published: Path | None = None


class Output(Record):
    """What ``quantize`` made: file names relative to ``job.out``, and what is really in them.

    ``tensor_types`` counts weights (elements) per storage type; ``bits_per_weight`` is the size of all weight
    data in bits over the number of weights of the unquantized model. ``details`` holds facts for the manifest
    and card that only this format has.
    """

    files: list[str]
    bits_per_weight: float
    tensor_types: dict[str, int]
    details: Parameters = {}


class Result(Record):
    """The child's answer: ``output`` of ``quantize`` (none for the other steps), wall seconds, peak bytes of RSS.

    ``obstacle`` says why ``refresh`` made nothing: the published weights are not what the source holds now.
    ``peak_device_memory_bytes`` is the most that PyTorch allocated on GPUs; None where it used none.
    """

    output: Output | None
    seconds: float
    peak_memory_bytes: int
    peak_device_memory_bytes: int | None = None
    obstacle: str | None = None


class Layout(Record):
    """How the variants of a format are made, once ``prepare`` has run.

    ``waves`` are names of variants that are made together and lie on the disk together. ``aliases`` names, for a
    variant that would hold the same weights in the same types as another, that other one: it is not made.
    ``refused`` gives the reason for each variant that this model cannot have after all.
    """

    waves: list[list[str]]
    aliases: dict[str, str] = {}
    refused: dict[str, str] = {}


class Quantizer(Protocol):
    """A format. Stateless; all methods but those of a :class:`Job`'s steps are cheap and import nothing heavy."""

    format: str
    #: The suffix of the published repo: ``{namespace}/{Model}-{suffix}``.
    suffix: str
    #: Whether ``quantize`` and ``quantize_wave`` go on from the files that an equal job left in ``job.out`` when it was
    #: killed; else the folder is emptied before.
    continues: bool

    @property
    def engine(self) -> Engine:
        """The evaluation engine that loads the format."""

    def ladders(self) -> dict[str, list[str]]:
        """Named lists of variants that a catalog may ask for by name."""

    def default_variants(self, config: Parameters) -> list[str]:
        """Names of the variants made when the catalog asks for none; ``config`` is the source's config.json."""

    def variant(self, name: str, config: Parameters) -> Variant:
        """Resolves a variant's name for a model.

        Raises ``BadInput`` for a name that the format does not know (naming the nearest one), ``Refused``
        for one that this model cannot have (a group size that does not divide its widths).
        """

    def check_name(self, name: str) -> None:
        """Raises ``BadInput`` if no model can have a variant of this name; used before any model is known."""

    def version(self) -> str:
        """The quantizer and its version, as it goes into the recipe; cheap, and stable for the same tool."""

    def tools(self) -> dict[str, str]:
        """Name and version of everything that :meth:`version` stands for, for the manifest's toolchain."""

    def unquantized(self, job: Job) -> Path:
        """The unquantized model as this format's engine loads it; exists once ``prepare`` has run."""

    def shared_files(self, job: Job) -> list[Path]:
        """Files that ``prepare`` made and that are published beside the variants (an imatrix)."""

    def check(self, job: Job) -> None:
        """Raises ``Refused`` for a fetched source of which the format cannot be made. Runs in a child process, before
        anything costly."""

    def costly_files(self, model_name: str) -> list[str]:
        """Names of those shared files that are downloaded, where they are published, rather than made again."""

    def prepare(self, job: Job) -> None:
        """Makes in ``job.prepared`` what all variants share. Runs in a child process."""

    def layout(self, job: Job, variants: list[Variant], standing: list[Variant], budget: int | None) -> Layout:
        """Divides variants into waves whose files take at most ``budget`` bytes (None: any).

        ``job`` is the one that ``prepare`` ran. ``standing`` variants of the same weights have their files already: a
        variant that would be the same is an alias of theirs.
        """

    def quantize(self, job: Job) -> Output:
        """Makes the files of ``job.variant`` in ``job.out``. Runs in a child process."""

    def quantize_wave(self, jobs: list[Job]) -> Iterable[Output]:
        """Makes several variants of one wave at once: an output per job, as it is done. Runs in a child process."""

    def refresh(self, job: Job) -> str | None:
        """Makes in ``job.out`` the files of ``job.published`` with the metadata of ``job.source``: the same weights,
        and no quantizer at work. Runs in a child process.

        Returns what of the source's tensors is not as it was when the weights were quantized, and makes nothing then;
        None where the files were made.
        """
