"""What is in a checkpoint folder: read from the headers of its safetensors files, without loading a tensor."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantpress.errors import QuantpressError

#: Header's names of data types to ours; the number is bits per element.
_DTYPES = {
    "F64": ("float64", 64), "F32": ("float32", 32), "F16": ("float16", 16), "BF16": ("bfloat16", 16),
    "I64": ("int64", 64), "I32": ("int32", 32), "I16": ("int16", 16), "I8": ("int8", 8), "U8": ("uint8", 8),
    "F8_E4M3": ("float8_e4m3", 8), "F8_E5M2": ("float8_e5m2", 8), "BOOL": ("bool", 8),
}  # fmt: skip
#: The parts of a quantized linear beside its packed weights: they count as size, not as weights.
_SIDE_TENSORS = (".qzeros", ".scales", ".g_idx")


@dataclass(frozen=True)
class Contents:
    """``weights`` counts elements per storage type; ``bits`` is the size of all tensors together."""

    weights: dict[str, int]
    bits: int

    @property
    def total_weights(self) -> int:
        return sum(self.weights.values())


def contents(folder: Path, packed_bits: int | None = None) -> Contents:
    """Counts the weights of all safetensors files of ``folder``.

    ``packed_bits`` is the width of the integers in the int32 words of ``qweight`` tensors. Raises
    :class:`QuantpressError` where there is no such file or a header cannot be read.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise QuantpressError(f"{folder} holds no safetensors files")
    weights: Counter[str] = Counter()
    bits = 0
    for file in files:
        for name, tensor in _header(file).items():
            elements = math.prod(tensor["shape"])
            dtype, width = _DTYPES[tensor["dtype"]]
            bits += elements * width
            if name.endswith(".qweight") and packed_bits is not None:
                weights[f"int{packed_bits}"] += elements * width // packed_bits
            elif not name.endswith(_SIDE_TENSORS):
                weights[dtype] += elements
    return Contents(dict(weights), bits)


def _header(file: Path) -> dict[str, dict[str, Any]]:  # the format: github.com/huggingface/safetensors
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size))
    except (OSError, ValueError) as error:
        raise QuantpressError(f"{file} is not a safetensors file: {error}") from None
    header.pop("__metadata__", None)
    return dict(header)
