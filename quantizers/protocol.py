"""The protocol that every format implements.

A quantizer object is cheap: importing its module imports neither torch nor transformers. The methods
``check``, ``prepare``, ``quantize`` and ``refresh`` run in a child process (``python -m quantizers.job``). These
methods import heavy packages inside their bodies. The child reads a :class:`Job` as JSON and writes a :class:`Result`
as JSON.
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

    ``branch`` is the branch on which the variant is published, for example ``main``. ``nominal_bits`` is the number of
    bits per weight that the name promises. The plan estimates sizes with ``nominal_bits``, but the recipe does not
    contain ``nominal_bits``. If ``needs_cuda`` is true, the plan blocks the variant on a machine without a GPU. If
    the machine's best GPU has a lower compute capability than ``compute_capability``, the plan also blocks the variant.
    """

    format: str
    name: str
    branch: str = "main"
    parameters: Parameters = {}
    nominal_bits: float = 16.0
    needs_cuda: bool = False
    compute_capability: float | None = None


class CalibrationText(Record):
    """The text that a quantizer calibrates on. The quantizer uses ``samples`` windows of ``length`` tokens from the
    text."""

    name: str
    path: Path
    sha256: str
    samples: int
    length: int


class Job(Record):
    """The work that a child process must do.

    ``source`` is the folder of the unquantized model (config.json, safetensors, tokenizer). ``prepare`` fills the
    folder ``prepared`` once for all variants of a format (with an F16 GGUF and its imatrix, for example). ``quantize``
    only reads the folder ``prepared``. ``out`` is the folder for the variant's files. If a format's files can be split,
    each file of more than ``split_above`` bytes is split.

    ``published`` is a folder of published files, or None. For ``refresh``, the folder holds the files that get new
    metadata. For ``prepare``, the folder holds costly shared files (files that take long to make) of another commit of
    the source. The child puts these files into ``prepared`` unchanged and does not make new ones. ``prepare`` gets
    published files of another commit only in a run that quantizes nothing, for example in one that renews metadata.

    ``evaluation_text`` is the text that the variants are measured on. Only ``check`` gets it.
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
    evaluation_text: Path | None = None

    @property
    def writes(self) -> list[Path]:
        """The folders in which the job writes. ``check`` writes only temporary files."""
        match self.step:
            case "check":
                return []
            case "prepare":
                return [self.prepared]
            case "quantize" | "refresh":
                return [self.prepared, self.out.parent]


class Output(Record):
    """The files that ``quantize`` made, and what the files really contain.

    ``files`` are names relative to ``job.out``. ``tensor_types`` maps a storage type to the number of weights
    (elements) of this type. ``bits_per_weight`` is the size of all weight data in bits, divided by the number of
    weights of the unquantized model. ``details`` holds facts that only this format has. The manifest and the card show
    these facts.
    """

    files: list[str]
    bits_per_weight: float
    tensor_types: dict[str, int]
    details: Parameters = {}


class Result(Record):
    """The child's answer to a :class:`Job`.

    ``output`` is the output of ``quantize``, or None for the other steps. ``seconds`` is wall time.
    ``peak_memory_bytes`` is the peak RSS. ``peak_device_memory_bytes`` is the most memory that PyTorch allocated on
    GPUs, or None if PyTorch used no GPU. If ``refresh`` made nothing, ``obstacle`` says what has changed in the
    source's tensors since the weights were quantized. ``sums`` maps each file that the step made to its SHA-256. The
    paths are relative to ``job.prepared`` for ``prepare``, and to ``job.out`` for the other steps. A later run uses the
    files again only if they still have these hashes.
    """

    output: Output | None
    seconds: float
    peak_memory_bytes: int
    peak_device_memory_bytes: int | None = None
    obstacle: str | None = None
    sums: dict[str, str] = {}


class Layout(Record):
    """How the variants of a format are made after ``prepare`` has run.

    ``waves`` is a list of waves. A wave is a list of names of variants that are made together and lie on the disk
    together. The keys of ``aliases`` are variants that are not made. Each value is a variant with the same weights in
    the same types, which is made or published. ``refused`` maps a variant to the reason why this model cannot have the
    variant.
    """

    waves: list[list[str]]
    aliases: dict[str, str] = {}
    refused: dict[str, str] = {}


class Quantizer(Protocol):
    """A format. A quantizer object has no state. A method that runs a step of a :class:`Job` can be slow and import
    heavy packages. All other methods are cheap and import nothing heavy."""

    format: str
    #: The suffix of the published repo: ``{namespace}/{Model}-{suffix}``.
    suffix: str
    #: Whether ``quantize`` and ``quantize_wave`` can continue from files that an equal job left in ``job.out`` because
    #: the job was killed. If they cannot, the press empties the folder before it starts them.
    continues: bool

    @property
    def engine(self) -> Engine:
        """The evaluation engine that loads the format."""

    def ladders(self) -> dict[str, list[str]]:
        """Returns a dict from the name of a ladder (a list of variants) to its variants. A catalog can name a
        ladder."""

    def default_variants(self, config: Parameters) -> list[str]:
        """Returns the names of the variants that are made if the catalog names no variants. ``config`` is the source's
        config.json."""

    def variant(self, name: str, config: Parameters) -> Variant:
        """Returns the variant that a name means for a model. ``config`` is the model's config.json.

        Raises ``BadInput`` for a name that the format does not know. The message says which known name is similar.
        Raises ``Refused`` for a variant that this model cannot have, for example because the group size does not divide
        the model's widths.
        """

    def check_name(self, name: str) -> None:
        """Raises ``BadInput`` if no model can have a variant of this name. Needs no model."""

    def version(self) -> str:
        """Returns the quantizer's name and version as one string for the recipe. The same tool always gives the same
        string."""

    def tools(self) -> dict[str, str]:
        """Returns a dict from name to version, with every tool that decides the bytes of the variants. The manifest's
        toolchain lists these tools."""

    def unquantized(self, job: Job) -> Path:
        """Returns the path of the unquantized model in the form that this format's engine loads. The path exists after
        ``prepare`` has run."""

    def shared_files(self, job: Job) -> list[Path]:
        """Returns the files from ``prepare`` that are published beside the variants, for example an imatrix."""

    def check(self, job: Job) -> None:
        """Raises ``Refused`` if the format cannot be made from the fetched source. Runs in a child process, before any
        long work."""

    def costly_files(self, model_name: str) -> list[str]:
        """Returns the names of the costly files: shared files that take long to make.

        The press downloads published costly files and does not make them, if ``prepare`` would make equal files or if
        the run quantizes nothing.
        """

    def prepare(self, job: Job) -> None:
        """Makes in ``job.prepared`` what all variants share. Runs in a child process."""

    def layout(self, job: Job, variants: list[Variant], standing: list[Variant], budget: int | None) -> Layout:
        """Divides ``variants`` into waves. The files of a wave take at most ``budget`` bytes (None: no limit).

        ``job`` is the job that was given to ``prepare``. ``standing`` are published variants whose files stay. They
        need the same prepared files as ``variants``. If a variant would be the same as a standing variant, the variant
        becomes an alias of the standing variant.
        """

    def quantize(self, job: Job) -> Output:
        """Makes the files of ``job.variant`` in ``job.out``. Runs in a child process."""

    def quantize_wave(self, jobs: list[Job]) -> Iterable[Output]:
        """Makes several variants of one wave together. Yields the output of each job as soon as the job is done. Runs
        in a child process."""

    def refresh(self, job: Job) -> str | None:
        """Copies the published files from ``job.published`` to ``job.out``, with the metadata of ``job.source``.

        The weights stay the same, and nothing is quantized. Returns None if the files were made. If the source's
        tensors have changed since the weights were quantized, makes nothing and returns what has changed. Runs in a
        child process.
        """
