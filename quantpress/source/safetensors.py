"""Counts the weights in a checkpoint folder.

Only the headers of the safetensors files are read. No tensor is loaded.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from quantpress.errors import QuantpressError
from quantpress.source.safetensors_header import SafetensorsHeader, SafetensorsTensor, read_safetensors_header
from quantpress.source.weight_files import weight_paths

#: Maps the safetensors format's names of data types to our names.
_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "C64": "complex64",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "BOOL": "bool",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
    "F8_E4M3": "float8_e4m3", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F6_E2M3": "float6_e2m3", "F6_E3M2": "float6_e3m2", "F4": "float4_e2m1",
}  # fmt: skip


@dataclass(frozen=True)
class Storage:
    """How a format stores the weights of quantized linear layers. The endings of tensor names tell which tensor is
    which.

    ``weights`` are the name endings of tensors with quantized weights. ``type`` is our name for the type of these
    weights, and ``bits`` is the number of bits that each weight takes in the tensor. ``beside`` are the name endings of
    scales and the like. These count towards the size, but not as weights. All other tensors are stored as in the
    unquantized model.
    """

    weights: tuple[str, ...]
    type: str
    bits: int
    beside: tuple[str, ...]


@dataclass(frozen=True)
class Contents:
    """The contents of a checkpoint.

    ``weights`` maps a storage type to its number of weights. ``bits`` is the size of all tensors together.
    """

    weights: dict[str, int]
    bits: int

    @property
    def total_weights(self) -> int:
        return sum(self.weights.values())


def contents(folder: Path, storage: Storage | None = None, source: Path | None = None) -> Contents:
    """Counts the weights in the files of ``folder`` that a loader reads. ``storage`` is None for an unquantized model.

    A linear layer is quantized if it has a tensor whose name ends with one of ``storage.beside``. The reason is that a
    format writes only ``weight`` for a linear layer that it leaves unquantized.

    ``source`` is the folder of the unquantized model. If ``source`` has the ``weight`` of a quantized linear layer, the
    number of its elements is counted, because packed weights can be padded. Otherwise, the number is computed from the
    packed tensor. Raises :class:`QuantpressError` if there is no safetensors file or a header cannot be read.
    """
    tensors, unquantized = _tensors(folder), _tensors(source) if source else {}
    quantized = {stem for name in tensors if storage and (stem := _stem(name, storage.beside))}
    weights: Counter[str] = Counter()
    bits = 0
    for name, tensor in tensors.items():
        bits += tensor.bits
        if storage and _stem(name, storage.beside):
            continue
        if storage and (stem := _stem(name, storage.weights)) in quantized:
            before = unquantized.get(f"{stem}.weight")
            weights[storage.type] += before.elements if before else tensor.bits // storage.bits
        else:
            weights[_TYPES[tensor.dtype]] += tensor.elements
    return Contents(dict(weights), bits)


def sound_header(file: Path) -> SafetensorsHeader:
    """Returns the header of a checkpoint's file. Raises :class:`QuantpressError` if the header cannot be read."""
    try:
        return read_safetensors_header(file)
    except (OSError, ValueError) as error:
        raise QuantpressError(f"{file} is not a safetensors file: {error}") from None


def _tensors(folder: Path) -> dict[str, SafetensorsTensor]:
    files = weight_paths(folder)
    if not files:
        raise QuantpressError(f"{folder} holds no safetensors files")
    return {tensor.name: tensor for file in files for tensor in sound_header(file).tensors}


def _stem(name: str, endings: tuple[str, ...]) -> str | None:
    """Returns the name of the linear layer that a tensor belongs to, or None if ``name`` has none of ``endings``."""
    return next((name.removesuffix(ending) for ending in endings if name.endswith(ending)), None)
