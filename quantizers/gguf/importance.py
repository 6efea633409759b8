"""Reads an imatrix file (importance matrix) in the same way as llama-quantize. The result is one weight for each input
of each matrix. This weight says how much the input matters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantpress.errors import BadInput, QuantpressError
from quantpress.source.gguf import read_gguf

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SUMS, _COUNTS = ".in_sum2", ".counts"


@dataclass(frozen=True)
class ImatrixNote:
    """What the file of a rung (one GGUF variant) says about the rung's imatrix: the name of the imatrix's file, the
    name of the calibration text, and the numbers of entries and windows."""

    file: bytes
    text: bytes | None
    entries: int
    windows: int


@dataclass(frozen=True)
class Importance:
    """``weights`` maps a tensor's name to float32 weights of shape (matrices, width). The tensor has one matrix, or one
    matrix per expert.

    ``text`` is the name of the calibration text, as the imatrix file states it. ``windows`` is the number of windows of
    this text that the imatrix is made from.
    """

    file: Path
    weights: dict[str, NDArray[np.float32]]
    text: bytes | None
    windows: int

    @property
    def note(self) -> ImatrixNote:
        return ImatrixNote(self.file.name.encode(), self.text, len(self.weights), self.windows)


def read_importance(file: Path) -> Importance:
    """Reads an imatrix in GGUF form.

    The weight of an input is the mean of the input's squares: their sum divided by the number of tokens that reached
    the matrix. If no token reached the matrix, the weight is 1 (tools/quantize/quantize.cpp, ``load_imatrix``). Raises
    :class:`BadInput` if ``file`` is not an imatrix in GGUF form, and :class:`QuantpressError` if a value is not finite.
    """
    import numpy as np

    try:
        reader = read_gguf(file)
        windows = int(reader.metadata["imatrix.chunk_count"])
        texts = reader.metadata["imatrix.datasets"]
    except (ValueError, KeyError) as error:
        raise BadInput(f"{file} is no imatrix in GGUF form ({error}): make it with llama-imatrix") from None
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    weights = {}
    for name in sorted(name.removesuffix(_SUMS) for name in tensors if name.endswith(_SUMS)):
        if name + _COUNTS not in tensors:
            raise BadInput(f"{file} has sums of {name} without their counts: make it again with llama-imatrix")
        counts = np.round(tensors[name + _COUNTS].reshape(-1, 1)).astype(np.float32)
        sums = tensors[name + _SUMS].reshape(len(counts), -1).astype(np.float32)
        reached = counts > 0
        means = np.where(reached, sums / np.where(reached, counts, np.float32(1)), np.float32(1))
        if not np.isfinite(means).all():
            raise QuantpressError(f"{file} has values of {name} that are not finite: the model overflows on the text")
        weights[name] = np.ascontiguousarray(means, dtype=np.float32)
    text = texts[0] if texts else None
    return Importance(file, weights, text, windows)
