"""Our reader of safetensors headers, compared with the library. The reader takes nothing that the library refuses, and
takes all that the library writes."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from quantpress.errors import QuantpressError
from quantpress.source.safetensors import contents
from quantpress.source.safetensors_header import SafetensorsTensor, read_safetensors_header

#: Bits of one element of each type.
TYPES = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip


def write(folder: Path, header: str | dict[str, Any], data: bytes = b"") -> Path:
    raw = (header if isinstance(header, str) else json.dumps(header)).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return folder / "model.safetensors"


def test_what_a_header_says(tmp_path: Path) -> None:
    header = (
        '{"b":{"dtype":"F4","shape":[2,3],"data_offsets":[8,11]},"__metadata__":{"format":"pt"},'
        '"a":{"data_offsets":[0,8],"dtype":"F32","shape":[2]}}  '
    )
    file = write(tmp_path, header, bytes(11))

    found = read_safetensors_header(file)

    begin = 8 + len(header)
    assert (found.text, found.metadata, found.data_begin) == (header, {"format": "pt"}, begin)
    assert found.tensors == (
        SafetensorsTensor(file, "b", "F4", (2, 3), begin + 8, begin + 11),
        SafetensorsTensor(file, "a", "F32", (2,), begin, begin + 8),
    )
    assert [(tensor.elements, tensor.bits) for tensor in found.tensors] == [(6, 24), (2, 64)]


def test_the_library_knows_no_other_types(tmp_path: Path) -> None:
    file = write(tmp_path, {"a": {"dtype": "?", "shape": [], "data_offsets": [0, 0]}})
    with pytest.raises(SafetensorError, match="expected one of") as caught, safe_open(file, "np"):
        pass
    assert set(re.findall(r"`(\w+)`", str(caught.value).partition("expected one of")[2])) == set(TYPES)


@pytest.mark.parametrize(("dtype", "bits"), TYPES.items())
def test_every_type_is_read_and_counted(tmp_path: Path, dtype: str, bits: int) -> None:
    file = write(tmp_path, {"a": {"dtype": dtype, "shape": [2, 4], "data_offsets": [0, bits]}}, bytes(bits))
    with safe_open(file, "np") as opened:
        assert opened.keys() == ["a"]

    assert read_safetensors_header(file).tensors[0].bits == 8 * bits
    found = contents(tmp_path)
    assert (found.bits, found.total_weights) == (8 * bits, 8)

    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(QuantpressError, match=r"model.safetensors is not a safetensors file: its tensors end at byte "):
        contents(tmp_path)


_ENTRY = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (f'{{"a":{_ENTRY},"\\u0061":{_ENTRY}}}', "its header names a twice"),
        (f'{{"__metadata__":{{"x":"1","x":"2"}},"a":{_ENTRY}}}', "its header names x twice"),
        (f' {{"a":{_ENTRY}}}', "its header is not a JSON object"),
        (f'{{"__metadata__":null,"a":{_ENTRY}}}', "its __metadata__ is not a map of texts to texts"),
        ('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}}', "its header describes tensor a wrongly"),
        ('{"a":["F32",[1],[0,4]]}', "its header describes tensor a wrongly"),
    ],
    ids=["one name twice", "one key twice", "space before", "no metadata", "unknown field", "no fields"],
)
def test_the_format_is_stricter_than_the_library(tmp_path: Path, header: str, why: str) -> None:
    file = write(tmp_path, header, bytes(4))
    with safe_open(file, "np") as opened:
        assert opened.keys() == ["a"]

    with pytest.raises(ValueError, match=f"^{why}$"):
        read_safetensors_header(file)


_names = st.text(st.characters(codec="utf-8"), max_size=3) | st.sampled_from(["a", "__metadata__", "\ud800", "a\nb"])
_odd = st.sampled_from([None, True, "1", -1, 0, 1.0, 1e400, float("nan"), 2**63, 2**64, 10**30, [], [0], {}, "F32"])


@st.composite
def _headers(draw: st.DrawFn) -> tuple[str, bytes]:
    """Draws a mostly sound header and its data. In half of the headers, one thing is changed."""
    header: dict[str, Any] = {}
    end = 0
    for name in draw(st.lists(_names, unique=True, max_size=3)):
        dtype, shape = draw(st.sampled_from(list(TYPES))), draw(st.lists(st.integers(0, 4), max_size=3))
        begin, end = end, end + TYPES[dtype] * int(np.prod(shape)) // 8
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    if draw(st.booleans()):
        header["__metadata__"] = draw(st.dictionaries(_names, _names, max_size=2))
    tensors = [entry for entry in header.values() if "dtype" in entry]
    if tensors and draw(st.booleans()):
        entry = draw(st.sampled_from(tensors))
        field = draw(st.sampled_from(list(entry)))
        if field == "dtype" or draw(st.booleans()):
            entry[field] = draw(_odd | st.sampled_from(list(TYPES)))
        else:
            entry[field].insert(draw(st.integers(0, 3)), draw(_odd))
            del entry[field][draw(st.integers(0, 3)) :]
    text = json.dumps(header, ensure_ascii=draw(st.booleans())) if "\ud800" not in str(header) else json.dumps(header)
    return text.replace("\ud800", "\\ud800") + draw(st.sampled_from(["", "  ", "\n", "\0"])), bytes(end)


@pytest.mark.foreign
@given(_headers())
def test_what_passes_here_passes_the_library(
    tmp_path_factory: pytest.TempPathFactory, written: tuple[str, bytes]
) -> None:
    file = write(tmp_path_factory.mktemp("header"), *written)
    try:
        found = read_safetensors_header(file)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1
        return
    with safe_open(file, "np") as opened:
        assert (opened.metadata() or {}) == found.metadata
        assert sorted(opened.keys()) == sorted(tensor.name for tensor in found.tensors)
        for tensor in found.tensors:
            view = opened.get_slice(tensor.name)
            assert (view.get_dtype(), tuple(view.get_shape())) == (tensor.dtype, tensor.shape)


_arrays = st.builds(
    np.zeros,
    st.lists(st.integers(0, 4), max_size=3),
    st.sampled_from([np.float64, np.float32, np.float16, np.int64, np.uint16, np.int8, np.bool_, np.complex64]),
)
_text = st.text(st.characters(codec="utf-8"))


@given(
    tensors=st.dictionaries(_text.filter(lambda name: name != "__metadata__"), _arrays, max_size=4),
    metadata=st.none() | st.dictionaries(_text, _text, max_size=4),
)
def test_what_the_library_writes_passes_here(
    tmp_path_factory: pytest.TempPathFactory,
    tensors: dict[str, np.ndarray[Any, Any]],
    metadata: dict[str, str] | None,
) -> None:
    # Skipped: for no tensors and no keys, 0.8.0 writes b'{},"__metadata__":{}}', which it cannot read itself.
    assume(tensors or metadata != {})
    file = tmp_path_factory.mktemp("written") / "model.safetensors"
    save_file(tensors, file, metadata=metadata)

    found = read_safetensors_header(file)

    assert found.metadata == (metadata or {})
    assert {tensor.name: tensor.shape for tensor in found.tensors} == {
        name: values.shape for name, values in tensors.items()
    }
    assert sum(tensor.bits for tensor in found.tensors) == 8 * sum(values.nbytes for values in tensors.values())
