"""What is in a checkpoint folder: read from the headers of its safetensors files, without loading a tensor."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from quantpress.errors import QuantpressError
from quantpress.source.safetensors_header import SafetensorsHeader, SafetensorsTensor, read_safetensors_header

#: The format's names of data types to ours.
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
    """The header of a file in a checkpoint. Raises :class:`QuantpressError` where it cannot be read."""
    try:
        return read_safetensors_header(file)
    except (OSError, ValueError) as error:
        raise QuantpressError(f"{file} is not a safetensors file: {error}") from None


def _tensors(folder: Path) -> dict[str, SafetensorsTensor]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise QuantpressError(f"{folder} holds no safetensors files")
    return {tensor.name: tensor for file in files for tensor in sound_header(file).tensors}


def _stem(name: str, endings: tuple[str, ...]) -> str | None:
    """The name of the linear that a tensor belongs to, if the tensor's name ends as one of ``endings``."""
    return next((name.removesuffix(ending) for ending in endings if name.endswith(ending)), None)
