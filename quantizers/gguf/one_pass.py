"""Makes several rungs (GGUF variants) of a model in one pass. Each tensor is read once. It is quantized once to each
type that it has in any of the rungs.

The quantization of a row does not depend on other rows. So each tensor is cut into bands of rows, and several threads
take one band after another. A thread reads its band, converts the band to float32, and quantizes it to each type. Then
the thread writes each result to its place in every file that needs the result. So memory holds only one band per
thread, for a model of any size. The files are byte for byte the files that llama-quantize makes one by one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

from quantizers.gguf.dry_run import PlannedTensor
from quantizers.gguf.ggml import Ggml
from quantizers.gguf.importance import Importance, read_importance
from quantizers.gguf.metadata import Head, UnquantizedTable, opened
from quantizers.gguf.rung_plan import RungPlan, load
from quantpress.errors import QuantpressError
from quantpress.files import atomic
from quantpress.toolchain.llama_cpp import LlamaCpp
from quantpress.toolchain.progress import Progress, silent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: How many elements a band has at most, unless one row has more. In float32 they take 512 KiB, so a band stays in a
#: core's cache while it is quantized several times.
_BAND_ELEMENTS = 1 << 17
#: The bytes per element of the widest types that are copied (I64, F64), and of the widest type that is made (F32).
_WIDEST_READ, _WIDEST_MADE = 8, 4
_MIB = 1 << 20


@dataclass(frozen=True)
class _Destination:
    """The place where a tensor begins in one rung's file."""

    rung: str
    descriptor: int
    offset: int


@dataclass(frozen=True)
class _Band:
    """Some whole rows of one matrix of a tensor. ``first_row`` is the number of the first row, counted over all
    matrices of the tensor. ``places`` maps a type to the files that get the band in this type."""

    tensor: PlannedTensor
    source_offset: int
    first_row: int
    rows: int
    weights: NDArray[np.float32] | None
    places: Mapping[str, Sequence[_Destination]]


def write_rungs(
    tools: LlamaCpp,
    model: Path,
    imatrix: Path | None,
    rungs: Mapping[Path, RungPlan],
    threads: int,
    progress: Progress = silent,
) -> None:
    """Writes a file for each plan. The files get their final names only when all files are complete.

    ``rungs`` is a dict from the path of a new file to its plan. :func:`quantizers.gguf.rung_plan.plan_rungs` must have
    made the plans for the same model and imatrix. Raises :class:`QuantpressError` when one of the rungs cannot be made
    in one pass, the disk is full, the model is damaged or a value is not finite. In these cases no file appears.
    """
    files, plans = {plan.rung: file for file, plan in rungs.items()}, list(rungs.values())
    for plan in plans:
        if reason := plan.refusal or plan.by_llama_quantize:
            raise QuantpressError(f"{plan.rung} cannot be made in one pass: {reason}")
    ggml, obstacle = load(tools)
    if ggml is None:
        raise QuantpressError(f"nothing can be made in one pass: {obstacle}")
    importance = read_importance(imatrix) if imatrix else None
    note = importance.note if importance else None
    with opened(ggml, model) as source, ExitStack() as stack, model.open("rb", buffering=0) as stream:
        heads = {plan.rung: source.head(plan.tensors, plan.file_type, note) for plan in plans}
        descriptors = {rung: _created(stack, files[rung], head) for rung, head in heads.items()}
        bands = _bands(source, plans, heads, descriptors, importance)
        total = sum(plan.file_bytes for plan in plans)
        _Press(ggml, stream.fileno(), total, progress).run(bands, threads)


def _created(stack: ExitStack, file: Path, head: Head) -> int:
    """Creates a file of the final size under a temporary name, and writes its head (all bytes before the first tensor).

    The file gets its final name when ``stack`` closes without an error.
    """
    for leftover in file.parent.glob(f".{escape(file.name)}.*.tmp"):
        leftover.unlink()
    temporary = stack.enter_context(atomic(file))
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    stack.callback(os.close, descriptor)
    try:
        os.posix_fallocate(descriptor, 0, head.file_bytes)
    except OSError as error:
        raise QuantpressError(
            f"no room for {file.name} of {head.file_bytes / 1e9:.2f} GB in {file.parent}: {error.strerror}"
        ) from None
    _write(descriptor, head.data, 0)
    return descriptor


def _bands(
    source: UnquantizedTable,
    plans: Sequence[RungPlan],
    heads: Mapping[str, Head],
    descriptors: Mapping[str, int],
    importance: Importance | None,
) -> Iterator[_Band]:
    for position, tensor in enumerate(plans[0].tensors):
        places: dict[str, list[_Destination]] = {}
        for plan in plans:
            place = _Destination(plan.rung, descriptors[plan.rung], heads[plan.rung].offsets[tensor.name])
            places.setdefault(plan.tensors[position].target, []).append(place)
        width, rows, matrices, more = tensor.shape
        weights = importance.weights.get(tensor.name) if importance else None
        if weights is None or weights.size != width * matrices:
            weights = None
        step = max(1, _BAND_ELEMENTS // width)
        offset = source.offset(tensor.name)
        for matrix in range(matrices * more):
            # If a tensor has several matrices, each is an expert with its own imatrix weights. So a band never holds
            # rows of two matrices.
            row_weights = None if weights is None else weights.reshape(matrices, width)[matrix]
            for first in range(0, rows, step):
                taken = min(step, rows - first)
                yield _Band(tensor, offset, matrix * rows + first, taken, row_weights, places)


class _Press:
    """Threads that take bands from one iterator until the iterator ends or one of the threads fails."""

    def __init__(self, ggml: Ggml, source: int, total_bytes: int, progress: Progress) -> None:
        self._ggml, self._source = ggml, source
        self._total_bytes, self._progress = total_bytes, progress
        self._lock = threading.Lock()
        self._stopped = False
        self._written = 0

    def run(self, bands: Iterator[_Band], threads: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            try:
                for worker in [pool.submit(self._work, bands) for _ in range(threads)]:
                    worker.result()
            finally:
                self._stopped = True

    def _work(self, bands: Iterator[_Band]) -> None:
        buffers = _Buffers()
        try:
            while band := self._next(bands):
                self._press(band, buffers)
        except BaseException:
            self._stopped = True
            raise

    def _next(self, bands: Iterator[_Band]) -> _Band | None:
        with self._lock:
            return None if self._stopped else next(bands, None)

    def _press(self, band: _Band, buffers: _Buffers) -> None:
        ggml, tensor = self._ggml, band.tensor
        width = tensor.shape[0]
        buffers.fit(band.rows * width)
        row_bytes = ggml.row_bytes(tensor.source, width)
        raw = buffers.raw[: band.rows * row_bytes]
        if os.preadv(self._source, [raw.data], band.source_offset + band.first_row * row_bytes) != raw.nbytes:
            raise QuantpressError(f"the unquantized model ends within {tensor.name}: convert it again")
        if not ggml.valid(tensor.source, raw):
            raise QuantpressError(f"{tensor.name} of the unquantized model holds a value that is not finite")
        values = None
        for type_name, places in band.places.items():
            data = raw
            if type_name != tensor.source:
                if values is None:
                    values = ggml.widen(tensor.source, raw, buffers.values)
                data = ggml.quantize(type_name, values, width, band.weights, buffers.out)
                if not ggml.valid(type_name, data):
                    rungs = ", ".join(place.rung for place in places)
                    raise QuantpressError(
                        f"{rungs} cannot be made: {tensor.name} as {type_name} holds a value that is not finite"
                    )
            start = band.first_row * ggml.row_bytes(type_name, width)
            for place in places:
                _write(place.descriptor, data.data, place.offset + start)
            self._report(data.nbytes * len(places))

    def _report(self, written: int) -> None:
        with self._lock:
            self._written += written
            self._progress("writing the ladder, MiB", self._written // _MIB, self._total_bytes // _MIB)


class _Buffers:
    """The memory of one thread. The memory is allocated again only when a band is larger than all bands before."""

    def __init__(self) -> None:
        self._elements = 0

    def fit(self, elements: int) -> None:
        import numpy as np

        if elements <= self._elements:
            return
        self._elements = elements
        self.raw = np.empty(elements * _WIDEST_READ, np.uint8)
        self.values = np.empty(elements, np.float32)
        self.out = np.empty(elements * _WIDEST_MADE, np.uint8)


def _write(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Writes all of ``data`` at ``offset``."""
    rest = memoryview(data)
    while rest:
        done = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[done:], offset + done
