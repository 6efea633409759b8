"""A GGUF file of a stranger: what is refused before llama.cpp reads it, and in what words."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantpress.errors import Refused
from quantpress.evaluation.engines import llama_cpp as engine
from quantpress.source.gguf import check_gguf, read_gguf
from quantpress.toolchain.llama_cpp import LlamaCpp

UINT8, UINT32, BOOL, STRING, ARRAY, UINT64 = 0, 4, 7, 8, 9, 10
F32, REMOVED, Q8_0 = 0, 4, 8


def u32(number: int) -> bytes:
    return struct.pack("<I", number)


def u64(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def text(content: str | bytes) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return u64(len(raw)) + raw


def key(name: str | bytes, kind: int, value: bytes) -> bytes:
    return text(name) + u32(kind) + value


def tensor(name: str | bytes, shape: list[int], kind: int = F32, offset: int = 0) -> bytes:
    return text(name) + u32(len(shape)) + u64(*shape) + u32(kind) + u64(offset)


def gguf(
    *entries: bytes, keys: int | None = None, tensors: tuple[bytes, ...] = (), count: int | None = None, data: int = 0
) -> bytes:
    """Returns a file with these entries and ``data`` bytes of zeros. ``keys`` and ``count`` replace the true numbers of
    keys and tensors."""
    counts = u64(len(tensors) if count is None else count, len(entries) if keys is None else keys)
    head = b"GGUF" + u32(3) + counts + b"".join(entries) + b"".join(tensors)
    return head + bytes(-len(head) % 32 + data)


_ONE = tensor("a", [8])
_HOSTILE = {
    "more keys than bytes": (gguf(keys=1 << 62), "it names 4611686018427387904 keys and has 32 bytes"),
    "more tensors than bytes": (gguf(count=3), "it names 3 tensors and has 32 bytes"),
    "too many keys": (gguf(keys=65537, data=65537 * 13), "it names 65537 tensors or keys, and 65536 are allowed"),
    "too many tensors": (gguf(count=65537, data=65537 * 24), "it names 65537 tensors or keys, and 65536 are allowed"),
    "a key beyond the end": (gguf(u64(1 << 63) + b"k" * 8), "it ends within its head, at byte 64"),
    "a text beyond the end": (gguf(key("k", STRING, u64(99))), "it ends within its head, at byte 64"),
    "an array beyond the end": (gguf(key("k", ARRAY, u32(UINT64) + u64(1 << 61))), "it names 2305843009213693952 numb"),
    "texts beyond the end": (gguf(key("k", ARRAY, u32(STRING) + u64(9))), "it names 9 texts and has 64 bytes"),
    "an array of arrays": (
        gguf(key("k", ARRAY, u32(ARRAY) + u64(1))),
        "it has an array of the type 9, which arrays ca",
    ),
    "an unknown type of value": (gguf(key("k", 13, u64(1))), "it has a value of the unknown type 13"),
    "an empty key": (gguf(key("", UINT8, b"1")), "a key is empty or has a zero byte: ''"),
    "two keys for C": (gguf(key("k\0x", UINT8, b"1")), "a key is empty or has a zero byte: 'k\\x00x'"),
    "a key that is no text": (gguf(key(b"\xff", UINT8, b"1")), "a key is not UTF-8: b'\\xff'"),
    "a key twice": (gguf(*2 * [key("k\x1b[2J", UINT8, b"1")]), "it has key 'k [2J' twice"),
    "an alignment of 64 bits": (
        gguf(key("general.alignment", UINT64, u64(32))),
        "its alignment is of type 10, and must",
    ),
    "a bool as alignment": (
        gguf(key("general.alignment", BOOL, b"\1")),
        "its alignment is of type 7, and must be of ty",
    ),
    "no alignment": (gguf(key("general.alignment", UINT32, u32(0))), "its alignment is 0, and must be a power of two"),
    "an odd alignment": (
        gguf(key("general.alignment", UINT32, u32(48))),
        "its alignment is 48, and must be a power of",
    ),
    "a name of 64 bytes": (gguf(tensors=(tensor("a" * 64, [8]),), data=32), "a tensor's name has 64 bytes, and 63 are"),
    "two names for C": (gguf(tensors=(tensor("a\0b", [8]),), data=32), "a tensor's name is empty or has a zero byte"),
    "a name twice": (gguf(tensors=(_ONE, tensor("a", [8], offset=32)), data=64), "it has two tensors of one name"),
    "no dimension": (gguf(tensors=(tensor("a", []),), data=32), "tensor a has 0 dimensions"),
    "five dimensions": (gguf(tensors=(tensor("a\nb", [1] * 5),), data=32), "tensor a b has 5 dimensions"),
    "a negative length": (gguf(tensors=(tensor("a", [0, 1 << 63]),)), "tensor a has a length of 9223372036854775808"),
    "too many bytes": (
        gguf(tensors=(tensor("a", [1 << 62] * 4),), data=32),
        "tensor a ends at byte 1809251394333065553",
    ),
    "a type that was removed": (
        gguf(tensors=(tensor("a", [32], REMOVED),), data=32),
        "tensor a is of the unknown type 4",
    ),
    "a type of tomorrow": (gguf(tensors=(tensor("a", [32], 999),), data=32), "tensor a is of the unknown type 999"),
    "half a block": (
        gguf(tensors=(tensor("a", [33], Q8_0),), data=64),
        "tensor a has rows of 33, and Q8_0 has blocks of",
    ),
    "a hole": (
        gguf(tensors=(_ONE, tensor("b", [8], offset=64)), data=96),
        "tensor b begins at byte 160, and the one bef",
    ),
    "an overlap": (
        gguf(tensors=(_ONE, tensor("b", [8], offset=0)), data=96),
        "tensor b begins at byte 96, and the one b",
    ),
    "an offset beyond": (
        gguf(tensors=(tensor("a", [8], offset=1 << 63),), data=32),
        "tensor a ends at byte 92233720368",
    ),
    "an offset that is not aligned": (
        gguf(tensors=(tensor("a", [8], offset=4),), data=64),
        "tensor a begins at byte 68",
    ),
}


@pytest.mark.parametrize(("content", "why"), _HOSTILE.values(), ids=_HOSTILE)
def test_what_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(content)

    with pytest.raises(ValueError) as caught:
        read_gguf(file)
    with pytest.raises(Refused) as refused:
        check_gguf(file)

    assert str(caught.value).startswith(why)
    assert str(refused.value).startswith(f"model.gguf is truncated, damaged or no GGUF file: {why}")
    assert len(str(refused.value).splitlines()) == 1
    assert "\x1b" not in str(refused.value)


def test_a_head_too_large_for_memory_is_refused(tmp_path: Path) -> None:
    """A list of Python takes eight bytes for each number of one byte. The file is sparse, so it takes no room."""
    file = tmp_path / "model.gguf"
    file.write_bytes(gguf(key("k", ARRAY, u32(UINT8) + u64(1 << 29))))
    with file.open("r+b") as stream:
        stream.truncate(1 << 30)
    with pytest.raises(ValueError, match="its 536870912 numbers need a head of more than 268435456 bytes"):
        read_gguf(file)

    file.write_bytes(gguf(key("k", STRING, u64(1 << 29))))
    with file.open("r+b") as stream:
        stream.truncate(1 << 30)
    with pytest.raises(ValueError, match="its head has more than 268435456 bytes"):
        read_gguf(file)


def test_every_part_is_read(tmp_path: Path) -> None:
    first, second = (tmp_path / f"model-0000{number}-of-00002.gguf" for number in (1, 2))
    first.write_bytes(gguf(tensors=(_ONE,), data=32))

    with pytest.raises(Refused, match=r"^model-00002-of-00002.gguf is missing: fetch all files of the model$"):
        check_gguf(first)
    second.write_bytes(b"GGML")
    with pytest.raises(Refused, match=r"^model-00002-of-00002.gguf is truncated, damaged or no GGUF file: it does "):
        check_gguf(first)
    second.write_bytes(gguf(tensors=(_ONE,), data=32))
    check_gguf(first)


def test_llama_cpp_never_sees_a_file_that_is_refused(tmp_path: Path) -> None:
    """There are no tools here, so an attempt to run one would be another error."""
    file = tmp_path / "model.gguf"
    file.write_bytes(gguf(tensors=(tensor("a", [8], REMOVED),), data=32))
    with pytest.raises(Refused, match="tensor a is of the unknown type 4"):
        engine.generate(cast(LlamaCpp, None), file, "Once", 4, 1)


_sizes = st.one_of(st.integers(0, 40), st.sampled_from([1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]))
_names = st.one_of(st.text(max_size=4), st.binary(max_size=4), st.sampled_from(["general.alignment", "a" * 64]))
_values = st.one_of(
    st.binary(max_size=9), st.builds(lambda kind, count: u32(kind) + u64(count), st.integers(0, 14), _sizes)
)
_keys = st.builds(key, _names, st.integers(0, 14), _values)
_tensors = st.builds(tensor, _names, st.lists(_sizes, max_size=5), st.integers(0, 45), _sizes)


@pytest.mark.foreign
@given(keys=st.lists(_keys, max_size=3), tensors=st.lists(_tensors, max_size=3), data=st.integers(0, 200))
def test_any_head_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, keys: list[bytes], tensors: list[bytes], data: int
) -> None:
    file = tmp_path_factory.mktemp("head") / "model.gguf"
    file.write_bytes(gguf(*keys, tensors=tuple(tensors), data=data))
    try:
        found = read_gguf(file)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert all(each.begin + each.size <= file.stat().st_size for each in found.tensors)
