"""Reads the header of a safetensors file (its tensors and metadata) without loading a tensor.

The format is described at https://github.com/huggingface/safetensors#format. This module trusts nothing that the file
says, and requires a header to be exactly as described. The safetensors library is laxer. It accepts a tensor that is
named twice, white space before the header, and fields that the format does not have.
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

#: The size of the number at the start of the file, in bytes. The number is the length of the header.
_LENGTH_BYTES = 8
#: The limit that the format sets on the length of a header, in bytes.
_HEADER_LIMIT = 100_000_000
_METADATA = "__metadata__"
_FIELDS = {"dtype", "shape", "data_offsets"}
#: Bits per element, for all types that the library knows (0.8.0, ``Dtype`` of tensor.rs).
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I8", "U8", "BOOL"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
#: The library counts in 64 bits, so it refuses this number and larger numbers.
_COUNTS = 1 << 64
_COUNT_DIGITS = 20
#: Matches half of a character (a surrogate). JSON's escapes can write a half, but UTF-8 cannot.
_HALF = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class SafetensorsTensor:
    """A tensor of a safetensors file.

    ``dtype`` is the format's name of the type (``BF16``). ``begin`` and ``end`` are in bytes, from the start of the
    file.
    """

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
    """The content of a header.

    ``text`` is the header's text as it is in the file, with the spaces that pad it. ``tensors`` are in the same order
    as in the header. The data of the tensors begins at byte ``data_begin``.
    """

    text: str
    metadata: dict[str, str]
    tensors: tuple[SafetensorsTensor, ...]
    data_begin: int


def read_safetensors_header(file: Path) -> SafetensorsHeader:
    """Reads the header of ``file``.

    Raises ``ValueError``, with the reason in one line, if the header is not as the format requires. Also raises it if
    the tensors, one after another, do not fill the file exactly to its last byte.
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
    """Returns the header as text and as parsed JSON.

    Some numbers of JSON are not numbers of the format (fractions, negative or too large ones). Each of these becomes
    None.
    """
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
    # JSON accepts "-0" as an integer. The library does not accept it as a count.
    if len(digits) > _COUNT_DIGITS or digits.startswith("-") or int(digits) >= _COUNTS:
        return None
    return int(digits)


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and not _HALF.search(value)


def _are_counts(values: object) -> TypeGuard[list[int]]:
    # In Python, a bool is an int, so ``isinstance`` would accept True.
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
    """Returns the type, the shape, and where the data begins and ends. None if ``entry`` has the wrong fields."""
    if not isinstance(entry, dict) or entry.keys() != _FIELDS:
        return None
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        return None
    return dtype, shape, offsets[0], offsets[1]


def _size_in_bits(tensor: SafetensorsTensor) -> int | None:
    """Returns the size that follows from type and shape.

    Returns None if the product of the lengths so far ever reaches 2**64, even if a later length is 0. The library
    cannot count it either.
    """
    elements = 1
    for length in tensor.shape:
        elements *= length
        if elements >= _COUNTS:
            return None
    return elements * _BITS[tensor.dtype]
