"""What is wrong with a source's weights is named: file, tensor, and what to do."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from quantpress.errors import ChildFailed, Refused
from quantpress.machine.child import run_child
from quantpress.source.weights import WeightsJob, WeightsReport, check_weights


def write_raw(file: Path, dtype: str, shape: list[int], data: bytes, name: str = "a.weight") -> None:
    header = json.dumps({name: {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + data)


def write_bf16(folder: Path, *values: float, shape: list[int] | None = None) -> Path:
    """Values that bfloat16, the upper half of a float32, holds exactly."""
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
    """As the converter stacks them; another matrix of the experts and another layer are tensors of their own."""
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
    # Vectors stay in float32.
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


@given(length=st.integers(0, len(_WHOLE) - 1))
@settings(max_examples=40, deadline=None)
def test_no_cut_goes_unseen(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    folder = tmp_path_factory.mktemp("cut")
    (folder / "model.safetensors").write_bytes(_WHOLE[:length])
    with pytest.raises(Refused, match=r"^model.safetensors is truncated or damaged: [^\n]+$"):
        check_weights(folder)


@given(header=st.binary(max_size=60))
@example(header=b"{}")
@example(header=b'{"__metadata__": {}}')
@settings(max_examples=60, deadline=None)
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


def test_the_index_is_held_to(tmp_path: Path) -> None:
    save_file({"a": np.ones(1, np.float32)}, tmp_path / "model-00001-of-00002.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))
    assert check_weights(tmp_path).tensors == 1

    index.write_text(json.dumps({"weight_map": {"b": "model-00002-of-00002.safetensors"}}))
    with pytest.raises(Refused, match=r"^model-00002-of-00002.safetensors is missing, and .* says .* tensor b"):
        check_weights(tmp_path)

    index.write_text(json.dumps({"weight_map": {"b": "model-00001-of-00002.safetensors"}}))
    with pytest.raises(Refused, match=r"^model-00001-of-00002.safetensors does not hold tensor b"):
        check_weights(tmp_path)

    index.write_text("[]")
    with pytest.raises(Refused, match=r"^model.safetensors.index.json is no index"):
        check_weights(tmp_path)


def test_the_child_says_it_in_one_line(tmp_path: Path) -> None:
    source = write_bf16(tmp_path, float("nan"))
    with pytest.raises(ChildFailed) as caught:
        run_child("quantpress.source.weights", WeightsJob(source=source), WeightsReport, tmp_path / "job")
    assert str(caught.value) == (
        "tensor a.weight in model.safetensors has a NaN or an infinite value: ask upstream, or pin a sound revision"
    )


def test_memory_stays_small(tmp_path: Path) -> None:
    """A tensor of 256 MB is read with far less memory than it has."""
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
