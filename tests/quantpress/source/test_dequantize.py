"""FP8 in blocks becomes bfloat16, also where a width is not a multiple of the block."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from quantpress.errors import Refused
from quantpress.machine.child import run_child
from quantpress.source.dequantize import Dequantized, DequantizeJob, dequantize

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "torch_dtype": "bfloat16",
    "quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [4, 2]},
}
NAME = "model.layers.0.mlp.up_proj.weight"


def source(folder: Path, *files: dict[str, Tensor]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    if len(files) == 1:
        save_file(files[0], folder / "model.safetensors")
        return folder
    placed = {}
    for number, tensors in enumerate(files):
        save_file(tensors, folder / f"part-{number}.safetensors")
        placed |= dict.fromkeys(tensors, f"part-{number}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    return folder


def test_each_block_has_its_own_factor(tmp_path: Path) -> None:
    weights = torch.ones(6, 5).to(torch.float8_e4m3fn)
    factors = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    norm = torch.full((5,), 0.5, dtype=torch.float32)
    made = source(tmp_path / "in", {NAME: weights, f"{NAME}_scale_inv": factors, "model.norm.weight": norm})

    assert dequantize(made, tmp_path / "out").tensors == 1

    found = load_file(tmp_path / "out" / "model.safetensors")
    assert found.keys() == {NAME, "model.norm.weight"}
    assert found[NAME].dtype == torch.bfloat16
    assert found[NAME].tolist() == [[1, 1, 2, 2, 3]] * 4 + [[4, 4, 5, 5, 6]] * 2
    assert torch.equal(found["model.norm.weight"], norm)
    assert json.loads((tmp_path / "out" / "config.json").read_bytes()) == {
        "model_type": "llama",
        "torch_dtype": "bfloat16",
    }
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"


def test_the_scales_may_lie_in_another_file(tmp_path: Path) -> None:
    weights, factors = torch.ones(4, 2).to(torch.float8_e4m3fn), torch.tensor([[2.0]])
    made = source(tmp_path / "in", {NAME: weights}, {f"{NAME}_scale_inv": factors, "model.norm.weight": torch.ones(2)})
    dequantize(made, tmp_path / "out")
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_bytes())["weight_map"]
    assert index == {NAME: "part-0.safetensors", "model.norm.weight": "part-1.safetensors"}
    assert load_file(tmp_path / "out" / "part-0.safetensors")[NAME].tolist() == [[2, 2]] * 4


def test_a_child_may_write_the_result_beside_its_own_folder(tmp_path: Path) -> None:
    weights, factors = torch.ones(4, 2).to(torch.float8_e4m3fn), torch.tensor([[2.0]])
    job = DequantizeJob(
        source=source(tmp_path / "in", {NAME: weights, f"{NAME}_scale_inv": factors}), out=tmp_path / "out"
    )
    assert job.writes == [tmp_path / "out"]  # /tmp itself is open to every child
    assert run_child("quantpress.source.dequantize", job, Dequantized, tmp_path / "job").tensors == 1
    assert load_file(tmp_path / "out" / "model.safetensors")[NAME].tolist() == [[2, 2]] * 4


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({NAME: torch.ones(4, 2).to(torch.float8_e4m3fn)}, "has FP8 weights, and no file has its scales"),
        (
            {NAME: torch.ones(6, 5).to(torch.float8_e4m3fn), f"{NAME}_scale_inv": torch.ones(1, 3)},
            r"has the shape \[6, 5\] and scales of the shape \[1, 3\], which are not fp8, in blocks of 4 x 2",
        ),
        (
            {NAME: torch.ones(4, 2, dtype=torch.int8), f"{NAME}_scale_inv": torch.ones(1, 1)},
            "is of type I8 with scales of type F32, not of FP8 blocks",
        ),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, tensors: dict[str, Tensor], reason: str) -> None:
    with pytest.raises(Refused, match=rf"^tensor {NAME} in model\.safetensors {reason}"):
        dequantize(source(tmp_path / "in", tensors), tmp_path / "out")
    assert not (tmp_path / "out").exists()
