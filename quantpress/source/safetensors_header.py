"""The header of a safetensors file: its tensors and metadata, read without loading a tensor.

The format is https://github.com/huggingface/safetensors#format. Nothing that the file says is trusted, and a header is
read as the format describes it. The library is laxer: it takes a tensor that is named twice, white space before the
header, and fields that the format does not have.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeGuard

from quantpress.text import one_line

#: Bytes of the number that says how long the header is.
_LENGTH_BYTES = 8
#: The format's own limit of a header, in bytes.
_HEADER_LIMIT = 100_000_000
_METADATA = "__metadata__"
_FIELDS = {"dtype", "shape", "data_offsets"}
#: Bits of an element, of all types that the library knows (0.8.0, ``Dtype`` of tensor.rs).
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I8", "U8", "BOOL"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
#: The library counts in 64 bits, and refuses what is more.
_COUNTS = 1 << 64
_COUNT_DIGITS = 20
#: Half of a character: JSON's escapes can write it, UTF-8 cannot.
_HALF = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class SafetensorsTensor:
    """``dtype`` is the format's name (``BF16``). ``begin`` and ``end`` are in bytes from the file's start."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def bits(self) -> int:
        return 8 * (self.end - self.begin)

    @property
    def place(self) -> str:
        return f"tensor {one_line(self.name)} in {self.file.name}"


@dataclass(frozen=True)
class SafetensorsHeader:
    """What the header of a file says. ``text`` is the header as it lies in the file, with the spaces that pad it;
    ``tensors`` are in its order. The data of the tensors begins at byte ``data_begin``."""

    text: str
    metadata: dict[str, str]
    tensors: tuple[SafetensorsTensor, ...]
    data_begin: int


def read_safetensors_header(file: Path) -> SafetensorsHeader:
    """Reads the header of ``file``.

    Raises ``ValueError``, which says in one line what is wrong, where the header is not as the format wants it, or its
    tensors do not fill the file to its last byte, one after the other.
    """
    with file.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        data_begin = _LENGTH_BYTES + length
        if data_begin > size:
            raise ValueError(f"its header needs {data_begin} bytes and the file has {size}")
        if length > _HEADER_LIMIT:
            raise ValueError(f"its header has {length} bytes, and at most {_HEADER_LIMIT} are allowed")
        raw = stream.read(length)
    text, entries = _parsed(raw)
    metadata = entries.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(_is_text(value) for pair in metadata.items() for value in pair):
        raise ValueError(f"its {_METADATA} is not a map of texts to texts")
    tensors = tuple(_tensor(file, name, entry, data_begin, size) for name, entry in entries.items())
    end = data_begin
    for tensor in sorted(tensors, key=lambda tensor: (tensor.begin, tensor.end)):
        if tensor.begin != end:
            raise ValueError(
                f"tensor {one_line(tensor.name)} begins at byte {tensor.begin}, and must begin at byte {end}"
            )
        end = tensor.end
    if end != size:
        raise ValueError(f"its tensors end at byte {end} and the file has {size}")
    return SafetensorsHeader(text, metadata, tensors, data_begin)


def _parsed(raw: bytes) -> tuple[str, dict[str, Any]]:
    """The header as text and as what it says. What JSON calls a number and the format does not is None."""
    try:
        text = raw.decode()
        entries = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_count,
            parse_float=lambda _: None,
            parse_constant=lambda _: None,
        )
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        entries = None
    if not isinstance(entries, dict) or not text.startswith("{"):
        raise ValueError("its header is not a JSON object")
    return text, entries


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"its header names {one_line(twice)} twice")
    return found


def _count(digits: str) -> int | None:
    # "-0" is an integer for JSON and no count for the library.
    if len(digits) > _COUNT_DIGITS or digits.startswith("-") or int(digits) >= _COUNTS:
        return None
    return int(digits)


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and not _HALF.search(value)


def _are_counts(values: object) -> TypeGuard[list[int]]:
    # A bool is an int for Python.
    return isinstance(values, list) and all(type(value) is int for value in values)


def _tensor(file: Path, name: str, entry: object, data_begin: int, size: int) -> SafetensorsTensor:
    fields = _fields(entry) if _is_text(name) else None
    if fields is None:
        raise ValueError(f"its header describes tensor {one_line(name)} wrongly")
    dtype, shape, first, last = fields
    if dtype not in _BITS:
        raise ValueError(f"tensor {one_line(name)} has type {one_line(dtype)}, which the format does not have")
    tensor = SafetensorsTensor(file, name, dtype, tuple(shape), data_begin + first, data_begin + last)
    if tensor.end > size:
        raise ValueError(f"{tensor.end} bytes are needed by tensor {one_line(name)} and the file has {size}")
    if last < first or _size_in_bits(tensor) != tensor.bits:
        form = one_line(f"{dtype} {shape}")
        raise ValueError(f"tensor {one_line(name)} of {form} cannot have {last - first} bytes")
    return tensor


def _fields(entry: object) -> tuple[str, list[int], int, int] | None:
    """Type, shape, and where the data begins and ends."""
    if not isinstance(entry, dict) or entry.keys() != _FIELDS:
        return None
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        return None
    return dtype, shape, offsets[0], offsets[1]


def _size_in_bits(tensor: SafetensorsTensor) -> int | None:
    """The size that type and shape give; None if the library cannot count it, even where a later 0 makes it 0."""
    elements = 1
    for length in tensor.shape:
        elements *= length
        if elements >= _COUNTS:
            return None
    return elements * _BITS[tensor.dtype]
