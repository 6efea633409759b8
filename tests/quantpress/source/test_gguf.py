"""Our reader of GGUF heads agrees with the gguf package on a sound file, and says what is wrong with other files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from hypothesis import given
from hypothesis import strategies as st

from quantpress.source.gguf import read_gguf


def write_sound(file: Path) -> Path:
    writer = GGUFWriter(file, "llama")
    writer.add_uint8("small", 7)
    writer.add_int64("negative", -(1 << 40))
    writer.add_float32("third", 0.25)
    writer.add_bool("yes", True)
    writer.add_string("greeting", "Grüße")
    writer.add_token_list(["a", "", "ü"])
    writer.add_array("sections", [11, 11, 10, 0])
    writer.add_tensor("vector", np.arange(5, dtype=np.float32))
    writer.add_tensor("matrix", np.arange(6, dtype=np.float16).reshape(2, 3))
    writer.add_tensor("blocks", np.arange(2 * 34, dtype=np.uint8).reshape(2, 34), raw_dtype=GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sound(tmp_path_factory.mktemp("gguf") / "sound.gguf")


def test_a_sound_file(sound: Path) -> None:
    found = read_gguf(sound)

    assert found.metadata == {
        "general.architecture": b"llama",
        "small": 7,
        "negative": -(1 << 40),
        "third": 0.25,
        "yes": True,
        "greeting": "Grüße".encode(),
        "tokenizer.ggml.tokens": [b"a", b"", "ü".encode()],
        "sections": [11, 11, 10, 0],
    }
    assert found.text("greeting") == "Grüße"
    assert (found.text("small"), found.text("absent")) == (None, None)
    assert [(tensor.name, tensor.shape, tensor.type, tensor.size) for tensor in found.tensors] == [
        ("vector", (5,), "F32", 20),
        ("matrix", (3, 2), "F16", 12),
        ("blocks", (32, 2), "Q8_0", 68),
    ]
    assert [tensor.elements for tensor in found.tensors] == [5, 6, 64]
    vector, matrix, blocks = (tensor.data for tensor in found.tensors)
    assert vector.tolist() == [0, 1, 2, 3, 4]
    assert matrix.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert blocks.shape == (2, 34)
    assert bytes(blocks[1]) == bytes(range(34, 68))


def test_it_agrees_with_the_gguf_package(sound: Path) -> None:
    theirs, ours = GGUFReader(sound), read_gguf(sound)
    assert ours.data_begin == theirs.data_offset
    assert [(tensor.begin, tensor.size) for tensor in ours.tensors] == [
        (tensor.data_offset, tensor.n_bytes) for tensor in theirs.tensors
    ]
    assert all((a.data == b.data).all() for a, b in zip(ours.tensors, theirs.tensors, strict=True))


def replaced(sound: Path, file: Path, old: bytes, new: bytes) -> Path:
    content = sound.read_bytes()
    assert content.count(old) == 1
    file.write_bytes(content.replace(old, new))
    return file


def name_of(text: str) -> bytes:
    return len(text).to_bytes(8, "little") + text.encode()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"GGUF", b"GGML", "it does not begin with GGUF"),
        (b"GGUF\3", b"GGUF\1", "its version is 1, and 2 and 3 are read"),
        (b"GGUF\3\0\0\0\3", b"GGUF\3\0\0\0\x30", "it names 48 tensors and has 608 bytes"),
        (b"GGUF\3\0\0\0\3\0\0\0\0\0", b"GGUF\3\0\0\0\3\0\0\0\0\1", "it names 1099511627779 tensors and has"),
        (name_of("small"), name_of("third"), "it has key 'third' twice"),
        (name_of("matrix"), name_of("vector"), "it has two tensors of one name"),
        ("Grüße".encode(), b"\xff" * 7, None),
        (name_of("blocks") + b"\2", name_of("blocks") + b"\5", "tensor blocks has 5 dimensions"),
        (name_of("blocks") + b"\2\0\0\0\x20", name_of("blocks") + b"\2\0\0\0\x21", "tensor blocks has rows of 33, and"),
        (name_of("matrix") + b"\2\0\0\0\3", name_of("matrix") + b"\2\0\0\0\x13", "tensor blocks begins at byte"),
        (name_of("small") + b"\0", name_of("small") + b"\x63", "it has a value of the unknown type 99"),
    ],
)
def test_what_is_wrong_is_said(sound: Path, tmp_path: Path, old: bytes, new: bytes, said: str | None) -> None:
    file = replaced(sound, tmp_path / "other.gguf", old, new)
    if said is None:
        assert read_gguf(file).metadata["greeting"] == b"\xff" * 7
        return
    with pytest.raises(ValueError, match=said) as caught:
        read_gguf(file)
    assert "\n" not in str(caught.value)


def test_no_cut_goes_unseen(sound: Path, tmp_path: Path) -> None:
    """Only the padding after the last tensor may be missing, because it holds no data."""
    content = sound.read_bytes()
    last = read_gguf(sound).tensors[-1]
    for length in range(last.begin + last.size):
        (tmp_path / "cut.gguf").write_bytes(content[:length])
        with pytest.raises(ValueError):
            read_gguf(tmp_path / "cut.gguf")


@pytest.mark.foreign
@given(place=st.integers(4, 600), value=st.binary(min_size=1, max_size=8))
def test_any_change_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, place: int, value: bytes) -> None:
    folder = tmp_path_factory.mktemp("changed")
    content = bytearray(write_sound(folder / "sound.gguf").read_bytes())
    content[place : place + len(value)] = value
    (folder / "changed.gguf").write_bytes(content)
    try:
        found = read_gguf(folder / "changed.gguf")
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert all(tensor.data.nbytes == tensor.size for tensor in found.tensors)
