"""Checks that the weights of a source are complete and finite.

The weights are read as they are stored in the safetensors files, one piece at a time. The check runs in a child
process: ``python -m quantpress.source.weights JOB.json RESULT.json``. The process first reads the tokenizer's files,
because the cards and Ollama's files need them only after the long work.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from quantpress.errors import Refused
from quantpress.files import write_text
from quantpress.machine.child import explained_exit
from quantpress.record.base import Record
from quantpress.source.safetensors_header import SafetensorsTensor, read_safetensors_header
from quantpress.source.tokenizer import check_tokenizer_files
from quantpress.source.weight_files import weight_paths, weights_in
from quantpress.text import one_line

#: Matches the number of an expert in a tensor's name. llama.cpp's converter stacks a layer's experts into one
#: tensor, so names that differ only in this number become one tensor.
_EXPERT = re.compile(r"\.experts\.\d+\.")
#: The number of bytes of a tensor that are in memory at a time.
_PIECE = 1 << 24


@dataclass(frozen=True)
class _Float:
    """How a float type is stored. The check reads a value as an unsigned integer and drops its sign bit.

    Without the sign, the values have the same order as their bits. So the largest value alone shows whether all are
    finite. ``unsigned`` is numpy's name of the unsigned type. ``magnitude`` is the mask that keeps all bits but the
    sign. ``infinite`` is the smallest value that is not finite (IEEE 754; E4M3 has no infinity, only NaN).
    ``beyond_float16`` is the smallest value that float16 rounds to infinity (65520, or the next value that the type
    has). It is None if there is no such value.
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
    """The job for the child process. ``source`` is the folder of a model with its safetensors files."""

    source: Path


class WeightsReport(Record):
    """What the check found.

    ``beyond_float16`` names the matrices, each with its file, whose values are finite but too large for float16.
    ``largest_tensor`` is in elements. It counts the experts of a layer as one tensor, because the converter stacks
    them.
    """

    tensors: int
    weights: int
    largest_tensor: int
    beyond_float16: list[str]


def check_weights(source: Path) -> WeightsReport:
    """Reads the headers of the files with the weights of ``source``, and all tensors of float types. Reads 16 MiB of a
    tensor at a time, to save memory.

    Raises :class:`Refused`, which names the file or the tensor, if a weight is NaN or infinite, or as
    :func:`tensors_of` does.
    """
    tensors = tensors_of(source)
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
        stacked[_EXPERT.sub(".experts.", tensor.name)] += tensor.elements
    return WeightsReport(
        tensors=len(tensors),
        weights=stacked.total(),
        largest_tensor=max(stacked.values(), default=0),
        beyond_float16=beyond,
    )


def tensors_of(source: Path) -> list[SafetensorsTensor]:
    """Returns the tensors in the headers of the files with the weights of ``source``.

    Raises :class:`Refused` if a file is cut off or damaged, if there is no safetensors file, or if the files hold no
    tensor. Also raises it if the index is unreadable or names a file or tensor that is missing.
    """
    files = weight_paths(source)
    if not files:
        raise Refused(f"{source} holds no safetensors file: only such weights are read")
    tensors = [tensor for file in files for tensor in _tensors(file)]
    if not tensors:
        raise Refused(_damaged(files[0], "it holds no tensor"))
    _check_index(source, tensors)
    return tensors


def matrix_weights(source: Path) -> Counter[str]:
    """Returns a counter from the type to the number of elements in matrices of this type. Reads only headers.

    The types have the safetensors format's names. Raises :class:`Refused` if a file is cut off or damaged.
    """
    found: Counter[str] = Counter()
    for file in weight_paths(source):
        for tensor in _tensors(file):
            if len(tensor.shape) > 1:
                found[tensor.dtype] += tensor.elements
    return found


def _tensors(file: Path) -> tuple[SafetensorsTensor, ...]:
    try:
        return read_safetensors_header(file).tensors
    except ValueError as error:
        raise Refused(_damaged(file, str(error))) from None


def _damaged(file: Path, why: str) -> str:
    return f"{file.name} is truncated or damaged: {why}; delete it and fetch it again, or ask upstream"


def _check_index(source: Path, tensors: list[SafetensorsTensor]) -> None:
    """Raises :class:`Refused` if a file lacks a tensor that the index says it holds."""
    index = found.index if (found := weights_in(source)) else None
    if index is None:
        return
    there = {(tensor.file.name, tensor.name) for tensor in tensors}
    for tensor, file in json.loads((source / index).read_bytes())["weight_map"].items():
        if (file, tensor) not in there:
            place = f"{one_line(file)} holds tensor {one_line(tensor)}"
            raise Refused(f"{index} says that {place}, but it does not: ask upstream")


def _largest(tensor: SafetensorsTensor, kind: _Float) -> int:
    """Returns the largest magnitude of a tensor's values, as its bits."""
    import numpy as np

    largest = 0
    with tensor.file.open("rb") as stream:
        for piece in _pieces(stream, tensor):
            values = np.frombuffer(piece, dtype=kind.unsigned)
            largest = max(largest, int((values & values.dtype.type(kind.magnitude)).max()))
    return largest


def _pieces(stream: BinaryIO, tensor: SafetensorsTensor) -> Iterator[bytes]:
    stream.seek(tensor.begin)
    rest = tensor.end - tensor.begin
    while rest:
        piece = stream.read(min(rest, _PIECE))
        if not piece:
            raise Refused(_damaged(tensor.file, f"it ends within tensor {one_line(tensor.name)}"))
        rest -= len(piece)
        yield piece


def main(job_file: Path, result_file: Path) -> None:
    job = WeightsJob.model_validate_json(job_file.read_bytes())
    check_tokenizer_files(job.source)
    write_text(result_file, check_weights(job.source).model_dump_json(indent=1))


if __name__ == "__main__":
    with explained_exit():
        main(Path(sys.argv[1]), Path(sys.argv[2]))
