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


@dataclass(frozen=True)
class Storage:
    """How a format stores its quantized linears, told by how the names of their tensors end.

    ``weights`` are the endings of the tensors that hold quantized weights, ``type`` is what these are called, and
    ``bits`` how many bits each takes there. ``beside`` are the endings of scales and the like, which count as size, not
    as weights. All other tensors are as they were.
    """

    weights: tuple[str, ...]
    type: str
    bits: int
    beside: tuple[str, ...]


@dataclass(frozen=True)
class Contents:
    """``weights`` counts elements per storage type; ``bits`` is the size of all tensors together."""

    weights: dict[str, int]
    bits: int

    @property
    def total_weights(self) -> int:
        return sum(self.weights.values())


def contents(folder: Path, storage: Storage | None = None, source: Path | None = None) -> Contents:
    """Counts the weights of all safetensors files of ``folder``; ``storage`` is None for an unquantized model.

    A linear is a quantized one if a tensor of its name ends as one of ``storage.beside``: a format that leaves a linear
    as it was writes its ``weight`` and nothing beside it. Where ``source``, the folder of the unquantized model, has
    its ``weight``, that says how many weights it holds: packed ones can be padded. Raises :class:`QuantpressError`
    where there is no such file or a header cannot be read.
    """
    tensors, unquantized = _tensors(folder), _tensors(source) if source else {}
    quantized = {stem for name in tensors if storage and (stem := _stem(name, storage.beside))}
    weights: Counter[str] = Counter()
    bits = 0
    for name, tensor in tensors.items():
        elements = math.prod(tensor["shape"])
        dtype, width = _DTYPES[tensor["dtype"]]
        bits += elements * width
        if storage and _stem(name, storage.beside):
            continue
        if storage and (stem := _stem(name, storage.weights)) in quantized:
            before = unquantized.get(f"{stem}.weight")
            weights[storage.type] += math.prod(before["shape"]) if before else elements * width // storage.bits
        else:
            weights[dtype] += elements
    return Contents(dict(weights), bits)


def _tensors(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise QuantpressError(f"{folder} holds no safetensors files")
    return {name: tensor for file in files for name, tensor in _header(file).items()}


def _stem(name: str, endings: tuple[str, ...]) -> str | None:
    """The name of the linear that a tensor belongs to, if the tensor's name ends as one of ``endings``."""
    return next((name.removesuffix(ending) for ending in endings if name.endswith(ending)), None)


def _header(file: Path) -> dict[str, dict[str, Any]]:  # the format: github.com/huggingface/safetensors
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size))
    except (OSError, ValueError) as error:
        raise QuantpressError(f"{file} is not a safetensors file: {error}") from None
    header.pop("__metadata__", None)
    return dict(header)
