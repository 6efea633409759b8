"""What a checkpoint holds, and how equal checkpoints become equal files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from quantizers.checkpoint.files import sort_metadata
from quantpress.errors import QuantpressError
from quantpress.source.safetensors import Storage, contents

NF4 = Storage(weights=(".weight",), type="nf4", bits=4, beside=(".weight.absmax", ".weight.quant_map"))


def save(folder: Path, **tensors: tuple[tuple[int, ...], str]) -> Path:
    folder.mkdir(exist_ok=True)
    named = {name.replace("__", "."): np.zeros(shape, dtype) for name, (shape, dtype) in tensors.items()}
    save_file(named, folder / "model.safetensors")
    return folder


def test_a_linear_without_scales_beside_it_is_as_it_was(tmp_path: Path) -> None:
    folder = save(
        tmp_path,
        q__weight=((32, 1), "uint8"),
        q__weight__absmax=((1,), "float32"),
        q__weight__quant_map=((16,), "float32"),
        norm__weight=((8,), "float16"),
    )

    found = contents(folder, NF4)

    assert found.weights == {"nf4": 64, "float16": 8}
    assert found.bits == 32 * 8 + 32 + 16 * 32 + 8 * 16


def test_padding_is_size_and_no_weights(tmp_path: Path) -> None:
    packed = Storage(weights=("._qdata",), type="int4", bits=4, beside=("._scale",))
    source = save(tmp_path / "source", q__weight=((8, 9), "float16"))
    made = save(tmp_path / "made", q___qdata=((8, 2), "int32"), q___scale=((8,), "float16"))

    assert contents(made, packed).weights == {"int4": 128}
    assert contents(made, packed, source).weights == {"int4": 72}
    assert contents(made, packed, source).bits == 8 * 2 * 32 + 8 * 16


def test_a_folder_without_safetensors(tmp_path: Path) -> None:
    with pytest.raises(QuantpressError, match="holds no safetensors files"):
        contents(tmp_path)


def test_metadata_is_sorted_and_nothing_else_changes(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    tensors = {"a": np.arange(6, dtype="float32"), "b": np.ones((2, 2), "float16")}
    metadata = {f"tensor {number}": json.dumps({"_type": "Tensor", "\u00e9": number}) for number in range(40)}

    written = set()
    for _ in range(4):
        save_file(tensors, file, metadata=metadata)
        sort_metadata(file)
        written.add(file.read_bytes())

    assert len(written) == 1
    with safe_open(file, "np") as opened:
        assert opened.metadata() == metadata
    assert {name: values.tolist() for name, values in load_file(file).items()} == {
        name: values.tolist() for name, values in tensors.items()
    }


def test_the_metadata_of_a_damaged_file_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": np.ones(2, "float32")}, file, metadata={"b": "1", "a": "2"})
    damaged = file.read_bytes()[:-1]
    file.write_bytes(damaged)

    with pytest.raises(QuantpressError, match=r"model.safetensors is not a safetensors file: \d+ bytes are needed by"):
        sort_metadata(file)

    assert file.read_bytes() == damaged
