"""Messages about bad weights of a source name the file, the tensor, and what to do."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save, save_file

from quantpress.errors import ChildFailed, Refused
from quantpress.machine.child import run_child
from quantpress.source.weights import WeightsJob, WeightsReport, check_weights, matrix_weights


def write_raw(file: Path, dtype: str, shape: list[int], data: bytes, name: str = "a.weight") -> None:
    header = json.dumps({name: {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + data)


def write_bf16(folder: Path, *values: float, shape: list[int] | None = None) -> Path:
    """Writes values as bfloat16, the upper half of a float32. Bfloat16 must hold the values exactly."""
    data = (np.array(values, "<f4").view("<u4") >> 16).astype("<u2").tobytes()
    write_raw(folder / "model.safetensors", "BF16", shape or [1, len(values)], data)
    return folder


def test_a_sound_model_is_counted(tmp_path: Path) -> None:
    tensors: dict[str, np.ndarray[Any, Any]] = {
        "a": np.ones((3, 4), np.float32),
        "b": np.full(5, -65504, np.float16),
        "n": np.zeros((), np.int64),
    }
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})

    report = check_weights(tmp_path)

    assert report == WeightsReport(tensors=3, weights=18, largest_tensor=12, beyond_float16=[])


def test_the_experts_of_a_layer_are_one_tensor(tmp_path: Path) -> None:
    """The converter stacks one matrix of all experts of a layer. Other matrices and layers are tensors of their own."""
    expert = np.ones((2, 4), np.float32)
    layers = {f"layers.{layer}.mlp.experts.{number}.up": expert for layer in (0, 1) for number in range(3)}
    down = {f"layers.0.mlp.experts.{number}.down": expert[:1] for number in range(3)}
    shards = {"model-00001-of-00002": layers, "model-00002-of-00002": down | {"embed": np.ones((5, 4), np.float32)}}
    for name, tensors in shards.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")

    assert check_weights(tmp_path) == WeightsReport(tensors=10, weights=80, largest_tensor=24, beyond_float16=[])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_a_value_that_is_not_finite_is_named(tmp_path: Path, bad: float, dtype: type) -> None:
    values: np.ndarray[Any, Any] = np.ones((2, 700), dtype)
    values[1, 699] = bad
    save_file({"fine": np.ones(3, dtype), "layers.1.up": values}, tmp_path / "model-00002-of-00002.safetensors")

    with pytest.raises(Refused) as caught:
        check_weights(tmp_path)

    assert str(caught.value) == (
        "tensor layers.1.up in model-00002-of-00002.safetensors has a NaN or an infinite value: ask upstream, or pin a "
        "sound revision"
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bfloat16_that_is_not_finite_is_named(tmp_path: Path, bad: float) -> None:
    with pytest.raises(Refused, match=r"tensor a.weight in model.safetensors has a NaN or an infinite value"):
        check_weights(write_bf16(tmp_path, 1.0, bad))


@pytest.mark.parametrize(("byte", "dtype", "sound"), [(0x7E, "F8_E4M3", True), (0xFF, "F8_E4M3", False)])
def test_eight_bit_floats(tmp_path: Path, byte: int, dtype: str, sound: bool) -> None:
    write_raw(tmp_path / "model.safetensors", dtype, [1, 1], bytes([byte]))
    if sound:
        assert check_weights(tmp_path).weights == 1
    else:
        with pytest.raises(Refused, match="a NaN or an infinite value"):
            check_weights(tmp_path)


def test_matrices_beyond_float16_are_named(tmp_path: Path) -> None:
    assert check_weights(write_bf16(tmp_path, 1.0, 65280.0)).beyond_float16 == []
    assert check_weights(write_bf16(tmp_path, 65536.0)).beyond_float16 == ["tensor a.weight in model.safetensors"]
    assert check_weights(write_bf16(tmp_path, -65536.0)).beyond_float16 == ["tensor a.weight in model.safetensors"]
    # The converter keeps vectors in float32.
    assert check_weights(write_bf16(tmp_path, 65536.0, shape=[1])).beyond_float16 == []


@pytest.mark.parametrize(("value", "beyond"), [(65519.9, False), (65520.0, True)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_rounds_to_infinity_is_beyond_float16(tmp_path: Path, value: float, beyond: bool, dtype: type) -> None:
    save_file({"a": np.array([[value]], dtype)}, tmp_path / "model.safetensors")
    assert bool(check_weights(tmp_path).beyond_float16) is beyond
    with np.errstate(over="ignore"):
        assert bool(np.isinf(np.array(value, dtype).astype(np.float16))) is beyond


def test_a_file_that_is_cut_off_is_named(tmp_path: Path) -> None:
    whole = save({"a": np.ones((4, 4), np.float32)})
    (tmp_path / "model.safetensors").write_bytes(whole[:-1])
    with pytest.raises(Refused) as caught:
        check_weights(tmp_path)
    assert str(caught.value) == (
        f"model.safetensors is truncated or damaged: {len(whole)} bytes are needed by tensor a and the file has "
        f"{len(whole) - 1}; delete it and fetch it again, or ask upstream"
    )


_WHOLE = save({"a": np.ones((4, 4), np.float32), "b": np.zeros(3, np.float16)})


@pytest.mark.foreign
@given(length=st.integers(0, len(_WHOLE) - 1))
def test_no_cut_goes_unseen(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    folder = tmp_path_factory.mktemp("cut")
    (folder / "model.safetensors").write_bytes(_WHOLE[:length])
    with pytest.raises(Refused, match=r"^model.safetensors is truncated or damaged: [^\n]+$"):
        check_weights(folder)


@pytest.mark.foreign
@given(header=st.binary(max_size=60))
@example(header=b"{}")
@example(header=b'{"__metadata__": {}}')
def test_any_header_without_a_tensor_is_refused(tmp_path_factory: pytest.TempPathFactory, header: bytes) -> None:
    folder = tmp_path_factory.mktemp("header")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(Refused, match=r"^model.safetensors is truncated or damaged: "):
        check_weights(folder)


@pytest.mark.parametrize("entry", ["{}", "[]", '{"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}', '"x"'])
def test_a_wrong_description_is_refused(tmp_path: Path, entry: str) -> None:
    header = f'{{"a": {entry}}}'.encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(Refused, match=r"^model.safetensors is truncated or damaged: [^\n]*tensor a"):
        check_weights(tmp_path)


def _of(dtype: str = '"F32"', shape: str = "[1]", offsets: str = "[0,4]", name: str = "a") -> str:
    """Returns a header with one tensor. The arguments are JSON."""
    return f'{{"{name}":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}}}'


def _before(more: str) -> str:
    return f"{{{more},{_of()[1:]}"


_WRONGLY = "its header describes tensor a wrongly"
_NO_OBJECT = "its header is not a JSON object"
_NO_METADATA = "its __metadata__ is not a map of texts to texts"
#: Headers that the library refuses too. Four bytes of data follow each header.
_MALFORMED = {
    "nothing": ("", _NO_OBJECT),
    "no JSON": ("{", _NO_OBJECT),
    "a list": ("[]", _NO_OBJECT),
    "bytes after it": (_of() + "\0", _NO_OBJECT),
    "5,000 objects in each other": ('{"a":' * 5000 + "1" + "}" * 5000, _NO_OBJECT),
    "5,000 lists in each other": (_of(shape="[" * 5000 + "]" * 5000), _NO_OBJECT),
    "a negative length": (_of(shape="[-1]"), _WRONGLY),
    "negative lengths of a positive product": (_of(shape="[-1,-1]"), _WRONGLY),
    "a text as length": (_of(shape='["1"]'), _WRONGLY),
    "a text as shape": (_of(shape='"1"'), _WRONGLY),
    "a bool as length": (_of(shape="[true]"), _WRONGLY),
    "a float as length": (_of(shape="[1.0]"), _WRONGLY),
    "1e400": (_of(shape="[1e400]"), _WRONGLY),
    "NaN": (_of(shape="[NaN]"), _WRONGLY),
    "minus zero": (_of(offsets="[-0,4]"), _WRONGLY),
    "2 to the 64th": (_of(shape=f"[{2**64}]"), _WRONGLY),
    "a million digits as length": (_of(shape="[" + "9" * 10**6 + "]"), _WRONGLY),
    "a million digits as offset": (_of(offsets="[0," + "9" * 10**6 + "]"), _WRONGLY),
    "three offsets": (_of(offsets="[0,4,4]"), _WRONGLY),
    "no type": ('{"a":{"shape":[1],"data_offsets":[0,4]}}', _WRONGLY),
    "a number as type": (_of(dtype="32"), _WRONGLY),
    "half a character": (_of(name=r"a\ud800"), _WRONGLY),
    "an unknown type": (_of(dtype='"F31"'), "tensor a has type F31, which the format does not have"),
    "begin after end": (_of(offsets="[4,0]"), "tensor a of F32 [1] cannot have -4 bytes"),
    "too few bytes": (_of(shape="[2]"), "tensor a of F32 [2] cannot have 4 bytes"),
    "half a byte": (_of('"F4"', "[7]"), "tensor a of F4 [7] cannot have 4 bytes"),
    "too much to count": (_of(shape=f"[{2**63},2,0]", offsets="[0,0]"), f"tensor a of F32 [{2**63}, 2, 0] cannot"),
    "a hole before": (_of(shape="[0]", offsets="[4,4]"), "tensor a begins at byte 66, and must begin at byte 62"),
    "a hole after": (_of(shape="[0]", offsets="[0,0]"), "its tensors end at byte 62 and the file has 66"),
    "an overlap": (_before(f'"b":{_of()[5:-1]}'), "tensor a begins at byte 115, and must begin at byte 119"),
    "a field twice": (_of(shape='[1],"shape":[1]'), "its header names shape twice"),
    "metadata twice": (_before('"__metadata__":{},"__metadata__":{}'), "its header names __metadata__ twice"),
    "a number in metadata": (_before('"__metadata__":{"x":1}'), _NO_METADATA),
    "a list as metadata": (_before('"__metadata__":[]'), _NO_METADATA),
}


@pytest.mark.parametrize(("header", "why"), _MALFORMED.values(), ids=_MALFORMED)
def test_a_malformed_header_is_refused_here_and_by_the_library(tmp_path: Path, header: str, why: str) -> None:
    raw = header.encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(4))
    with pytest.raises(SafetensorError), safe_open(tmp_path / "model.safetensors", "np"):
        pass

    for read in (check_weights, matrix_weights):
        with pytest.raises(Refused) as caught:
            read(tmp_path)
        said = str(caught.value)
        assert said.startswith(f"model.safetensors is truncated or damaged: {why}")
        assert said.endswith("; delete it and fetch it again, or ask upstream")
        assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("length", "why"),
    [
        (100_000_000, "needs 100000008 bytes and the file has 100000000"),
        (100_000_001, "has 100000001 bytes, and at most 100000000 are allowed"),
    ],
)
def test_a_header_too_long(tmp_path: Path, length: int, why: str) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", length))
    with file.open("r+b") as stream:
        stream.truncate(8 + length if length > 100_000_000 else length)
    with pytest.raises(SafetensorError), safe_open(file, "np"):
        pass
    with pytest.raises(Refused, match=f"^model.safetensors is truncated or damaged: its header {why}; delete it"):
        check_weights(tmp_path)


def test_the_child_says_it_in_one_line(tmp_path: Path) -> None:
    source = write_bf16(tmp_path, float("nan"))
    with pytest.raises(ChildFailed) as caught:
        run_child("quantpress.source.weights", WeightsJob(source=source), WeightsReport, tmp_path / "job")
    assert str(caught.value) == (
        "tensor a.weight in model.safetensors has a NaN or an infinite value: ask upstream, or pin a sound revision"
    )


def test_memory_stays_small(tmp_path: Path) -> None:
    """Reading a tensor of 256 MB takes far less memory than 256 MB."""
    file = tmp_path / "model.safetensors"
    header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 13, 1 << 13], "data_offsets": [0, 1 << 28]}}).encode()
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header)
        stream.truncate(8 + len(header) + (1 << 28))
    code = (
        "import resource, sys, numpy; from pathlib import Path; from quantpress.source.weights import check_weights\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert check_weights(Path(sys.argv[1])).weights == 1 << 26\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100
