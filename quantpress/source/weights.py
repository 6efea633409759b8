"""Are the weights of a source whole and finite? Read as they lie in its safetensors files, a piece at a time.

``python -m quantpress.source.weights JOB.json RESULT.json`` does it in a child process.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from quantpress.errors import Refused
from quantpress.files import write_text
from quantpress.machine.child import explained_exit
from quantpress.record.base import Record

#: The number of an expert in a tensor's name: the converter stacks a layer's experts into one tensor.
_EXPERT = re.compile(r"\.experts\.\d+\.")
#: Bytes of a tensor that are held at a time.
_PIECE = 1 << 24
#: The safetensors format's own limit of a header, in bytes.
_HEADER_LIMIT = 100_000_000
_HEADER_START = 8
#: Bytes of an element, of the types in which whole bytes are stored.
_ELEMENT_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "BOOL"), 1),
}


@dataclass(frozen=True)
class _Float:
    """How a float type is stored, seen as an unsigned number without its sign.

    Numbers of one sign are ordered as their bits are, so the largest says all: ``infinite`` is the first that is not
    finite (IEEE 754; E4M3 has NaN alone), ``beyond_float16`` the first that rounds to an infinite float16 (65520).
    """

    unsigned: str
    magnitude: int
    infinite: int
    beyond_float16: int | None = None


_FLOATS = {
    "F64": _Float("<u8", 0x7FFF_FFFF_FFFF_FFFF, 0x7FF0_0000_0000_0000, 0x40EF_FE00_0000_0000),
    "F32": _Float("<u4", 0x7FFF_FFFF, 0x7F80_0000, 0x477F_F000),
    "F16": _Float("<u2", 0x7FFF, 0x7C00),
    "BF16": _Float("<u2", 0x7FFF, 0x7F80, 0x4780),
    "F8_E4M3": _Float("|u1", 0x7F, 0x7F),
    "F8_E5M2": _Float("|u1", 0x7F, 0x7C),
}


class WeightsJob(Record):
    """``source`` is the folder of a model with its safetensors files."""

    source: Path


class WeightsReport(Record):
    """What was looked at. ``beyond_float16`` names matrices, each with its file, that hold finite values which
    float16 does not. ``largest_tensor`` is in elements; the experts of a layer, which the converter stacks, are one
    tensor."""

    tensors: int
    weights: int
    largest_tensor: int
    beyond_float16: list[str]


@dataclass(frozen=True)
class _Tensor:
    """``begin`` and ``end`` are in bytes from the file's start."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def place(self) -> str:
        return f"tensor {self.name} in {self.file.name}"


def check_weights(source: Path) -> WeightsReport:
    """Reads every safetensors file of ``source`` whole; memory holds 16 MiB of a tensor at a time.

    Raises :class:`Refused`, naming file and tensor, for a file that is cut off or damaged, files without any tensor, a
    file that the index names and that is missing, and a weight that is NaN or infinite.
    """
    files = sorted(source.glob("*.safetensors"))
    if not files:
        raise Refused(f"{source} holds no safetensors file: only such weights are read")
    tensors = [tensor for file in files for tensor in _tensors(file)]
    if not tensors:
        raise Refused(_damaged(files[0], "it holds no tensor"))
    _check_index(source, tensors)
    broken, beyond = [], []
    for tensor in tensors:
        kind = _FLOATS.get(tensor.dtype)
        largest = 0 if kind is None else _largest(tensor, kind)
        if kind is not None and largest >= kind.infinite:
            broken.append(tensor.place)
        elif kind is not None and kind.beyond_float16 is not None and len(tensor.shape) > 1:
            beyond += [tensor.place] if largest >= kind.beyond_float16 else []
    if broken:
        more = f" (and {len(broken) - 1} more tensors)" if len(broken) > 1 else ""
        raise Refused(f"{broken[0]}{more} has a NaN or an infinite value: ask upstream, or pin a sound revision")
    stacked: Counter[str] = Counter()
    for tensor in tensors:
        stacked[_EXPERT.sub(".experts.", tensor.name)] += math.prod(tensor.shape)
    return WeightsReport(
        tensors=len(tensors),
        weights=stacked.total(),
        largest_tensor=max(stacked.values(), default=0),
        beyond_float16=beyond,
    )


def matrix_weights(source: Path) -> Counter[str]:
    """Elements of all matrices of ``source`` by the safetensors format's name of their type; reads headers only.

    Raises :class:`Refused` for a file that is cut off or damaged.
    """
    found: Counter[str] = Counter()
    for file in sorted(source.glob("*.safetensors")):
        for tensor in _tensors(file):
            if len(tensor.shape) > 1:
                found[tensor.dtype] += math.prod(tensor.shape)
    return found


def _tensors(file: Path) -> list[_Tensor]:
    """The tensors that a file's header names; they must fill the file to its last byte."""
    size = file.stat().st_size
    start, header = _header(file, size)
    found = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape = str(entry["dtype"]), tuple(int(length) for length in entry["shape"])
            first, last = (int(offset) for offset in entry["data_offsets"])
        except (TypeError, KeyError, ValueError):
            raise Refused(_damaged(file, f"its header describes tensor {name} wrongly")) from None
        tensor = _Tensor(file, name, dtype, shape, start + first, start + last)
        if tensor.end > size:
            raise Refused(_damaged(file, f"{tensor.end} bytes are needed by tensor {name} and the file has {size}"))
        element = _ELEMENT_BYTES.get(dtype)
        if first < 0 or last < first or (element and last - first != element * math.prod(shape)):
            raise Refused(_damaged(file, f"tensor {name} of {dtype} {list(shape)} cannot have {last - first} bytes"))
        found.append(tensor)
    end = max((tensor.end for tensor in found), default=start)
    if end != size:
        raise Refused(_damaged(file, f"its tensors end at byte {end} and the file has {size}"))
    return found


def _header(file: Path, size: int) -> tuple[int, dict[str, Any]]:
    """Where the data starts, in bytes, and the parsed header."""
    with file.open("rb") as stream:
        start = _HEADER_START + int.from_bytes(stream.read(_HEADER_START), "little")
        if size < _HEADER_START or start > size or start > _HEADER_LIMIT:
            raise Refused(_damaged(file, f"its header needs {start} bytes and the file has {size}"))
        try:
            header = json.loads(stream.read(start - _HEADER_START))
        except ValueError:
            header = None
    if not isinstance(header, dict):
        raise Refused(_damaged(file, "its header is not a JSON object"))
    return start, header


def _damaged(file: Path, why: str) -> str:
    return f"{file.name} is truncated or damaged: {why}; delete it and fetch it again, or ask upstream"


def _check_index(source: Path, tensors: list[_Tensor]) -> None:
    """Every tensor that an index names must be in the file that it names."""
    there = {(tensor.file.name, tensor.name) for tensor in tensors}
    files = {tensor.file.name for tensor in tensors}
    for index in sorted(source.glob("*.safetensors.index.json")):
        try:
            named = json.loads(index.read_bytes())["weight_map"].items()
        except (ValueError, TypeError, KeyError, AttributeError):
            raise Refused(f"{index.name} is no index of safetensors files: ask upstream") from None
        for tensor, file in named:
            if file not in files:
                raise Refused(f"{file} is missing, and {index.name} says that it holds tensor {tensor}: ask upstream")
            if (file, tensor) not in there:
                raise Refused(f"{file} does not hold tensor {tensor}, and {index.name} says so: ask upstream")


def _largest(tensor: _Tensor, kind: _Float) -> int:
    """The largest magnitude of a tensor's values, as its bits."""
    import numpy as np

    largest = 0
    with tensor.file.open("rb") as stream:
        for piece in _pieces(stream, tensor):
            values = np.frombuffer(piece, dtype=kind.unsigned)
            largest = max(largest, int((values & values.dtype.type(kind.magnitude)).max()))
    return largest


def _pieces(stream: BinaryIO, tensor: _Tensor) -> Iterator[bytes]:
    stream.seek(tensor.begin)
    rest = tensor.end - tensor.begin
    while rest:
        piece = stream.read(min(rest, _PIECE))
        if not piece:
            raise Refused(_damaged(tensor.file, f"it ends within tensor {tensor.name}"))
        rest -= len(piece)
        yield piece


def main(job_file: Path, result_file: Path) -> None:
    job = WeightsJob.model_validate_json(job_file.read_bytes())
    write_text(result_file, check_weights(job.source).model_dump_json(indent=1))


if __name__ == "__main__":
    with explained_exit():
        main(Path(sys.argv[1]), Path(sys.argv[2]))
