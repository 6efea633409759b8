"""The protocol that every format implements.

A quantizer object is cheap: importing its module imports neither torch nor transformers. The methods
``check``, ``prepare``, ``quantize`` and ``refresh`` run in a child process (``python -m quantizers.job``). The child
reads a :class:`Job` as JSON and writes a :class:`Result` as JSON. Heavy packages are imported inside these methods.
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

    ``branch`` is where the variant is published (``main`` or a branch's name). ``nominal_bits`` are the bits per weight
    that the name promises. The plan estimates with them; the recipe does not contain them. The plan blocks a variant
    that ``needs_cuda`` on a machine without a GPU. It also blocks a variant whose ``compute_capability`` is above that
    of the machine's GPUs.
    """

    format: str
    name: str
    branch: str = "main"
    parameters: Parameters = {}
    nominal_bits: float = 16.0
    needs_cuda: bool = False
    compute_capability: float | None = None


class CalibrationText(Record):
    """The text that a quantizer calibrates on, and how much of the text it uses: ``samples`` windows of ``length``
    tokens."""

    name: str
    path: Path
    sha256: str
    samples: int
    length: int


class Job(Record):
    """The work that a child process is asked to do.

    ``source`` holds the unquantized model (config.json, safetensors, tokenizer). ``prepare`` fills the folder
    ``prepared`` once for all variants of a format (with an F16 GGUF and its imatrix, for example). ``quantize`` only
    reads that folder. ``out`` is an empty folder for the variant's files. If a format's files can be split, each file
    of more than ``split_above`` bytes is.

    ``published`` holds published files. For ``refresh`` these are the files that get new metadata. For ``prepare``
    these are costly shared files that were made from another commit of the source. They are kept unchanged. They are
    given only if nothing is quantized with them.
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
    """The files that ``quantize`` made, as names relative to ``job.out``, and what they really contain.

    ``tensor_types`` counts weights (elements) per storage type. ``bits_per_weight`` is the size of all weight data in
    bits, divided by the number of weights of the unquantized model. ``details`` holds facts for the manifest and the
    card that only this format has.
    """

    files: list[str]
    bits_per_weight: float
    tensor_types: dict[str, int]
    details: Parameters = {}


class Result(Record):
    """The child's answer: the ``output`` of ``quantize`` (None for the other steps), wall seconds, peak bytes of RSS.

    ``obstacle`` says why ``refresh`` made nothing: what has changed in the source's tensors since the weights were
    quantized. ``peak_device_memory_bytes`` is the most memory that PyTorch allocated on GPUs, or None if it used no
    GPU.
    """

    output: Output | None
    seconds: float
    peak_memory_bytes: int
    peak_device_memory_bytes: int | None = None
    obstacle: str | None = None


class Layout(Record):
    """How the variants of a format are made after ``prepare`` has run.

    Each of the ``waves`` lists the names of variants that are made together and lie on the disk together. ``aliases``
    maps a variant to another one that holds the same weights in the same types; the first one is not made.
    ``refused`` maps a variant to the reason why this model cannot have it.
    """

    waves: list[list[str]]
    aliases: dict[str, str] = {}
    refused: dict[str, str] = {}


class Quantizer(Protocol):
    """A format. It has no state. All methods are cheap and import nothing heavy, except those that run a
    :class:`Job`'s steps."""

    format: str
    #: The suffix of the published repo: ``{namespace}/{Model}-{suffix}``.
    suffix: str
    #: Whether ``quantize`` and ``quantize_wave`` continue from the files that an equal job left in ``job.out`` when it
    #: was killed. If not, the folder is emptied first.
    continues: bool

    @property
    def engine(self) -> Engine:
        """The evaluation engine that loads the format."""

    def ladders(self) -> dict[str, list[str]]:
        """Named lists of variants. A catalog can ask for a list by its name."""

    def default_variants(self, config: Parameters) -> list[str]:
        """Names of the variants that are made if the catalog names none. ``config`` is the source's config.json."""

    def variant(self, name: str, config: Parameters) -> Variant:
        """Resolves a variant's name for a model.

        Raises ``BadInput`` for a name that the format does not know; the message names the nearest known name. Raises
        ``Refused`` for a variant that this model cannot have (a group size that does not divide its widths).
        """

    def check_name(self, name: str) -> None:
        """Raises ``BadInput`` if no model can have a variant of this name. Used before any model is known."""

    def version(self) -> str:
        """The quantizer and its version, as the recipe holds them. Cheap, and always the same for the same tool."""

    def tools(self) -> dict[str, str]:
        """Name and version of every tool that :meth:`version` stands for. The manifest's toolchain lists them."""

    def unquantized(self, job: Job) -> Path:
        """The unquantized model, as this format's engine loads it. It exists after ``prepare`` has run."""

    def shared_files(self, job: Job) -> list[Path]:
        """Files that ``prepare`` made and that are published beside the variants (an imatrix)."""

    def check(self, job: Job) -> None:
        """Raises ``Refused`` if the format cannot be made from the fetched source. Runs in a child process, before
        any costly work."""

    def costly_files(self, model_name: str) -> list[str]:
        """Names of the shared files that are downloaded instead of made again, if they are published."""

    def prepare(self, job: Job) -> None:
        """Makes in ``job.prepared`` what all variants share. Runs in a child process."""

    def layout(self, job: Job, variants: list[Variant], standing: list[Variant], budget: int | None) -> Layout:
        """Divides variants into waves whose files take at most ``budget`` bytes (None: no limit).

        ``job`` is the job that ``prepare`` ran. ``standing`` variants hold the same weights and have their files
        already. A variant that would be the same as a standing one becomes its alias.
        """

    def quantize(self, job: Job) -> Output:
        """Makes the files of ``job.variant`` in ``job.out``. Runs in a child process."""

    def quantize_wave(self, jobs: list[Job]) -> Iterable[Output]:
        """Makes several variants of one wave at once. Yields one output per job, when that job is done. Runs in a child
        process."""

    def refresh(self, job: Job) -> str | None:
        """Writes the files of ``job.published`` into ``job.out``, with the metadata of ``job.source``. The weights stay
        the same and nothing is quantized. Runs in a child process.

        Returns None if the files were made. If the source's tensors have changed since the weights were quantized, it
        makes nothing and returns what has changed.
        """
