"""TQ1_0 and TQ2_0 lose nothing of a ternary model, as BitNet trains them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize

from quantizers.gguf.one_pass import write_rungs
from quantizers.gguf.rung_plan import plan_rungs
from quantpress.toolchain.llama_cpp import LlamaCpp
from tests.support.gguf_files import Matrices, wide, write_model

#: The only magnitude in a ternary matrix. Float16 holds it exactly.
SCALE = 0.03125


def ternary(matrices: Matrices) -> Matrices:
    """Rounds every weight of the layers' matrices to -SCALE, 0 or SCALE."""

    def rounded(name: str, values: np.ndarray) -> np.ndarray:
        if values.ndim < 2 or not name.startswith("blk."):
            return values
        return (np.sign(values) * (np.abs(values) > np.median(np.abs(values))) * SCALE).astype(np.float32)

    return {name: rounded(name, values) for name, values in matrices.items()}


@pytest.mark.parametrize("rung", ["TQ1_0", "TQ2_0"])
def test_the_round_trip_is_exact(rung: str, llama_cpp: LlamaCpp, tiny_model: Path, tmp_path: Path) -> None:
    matrices = ternary(wide(tiny_model))
    model, file = tmp_path / "m-F16.gguf", tmp_path / f"m-{rung}.gguf"
    write_model(model, matrices, {})

    (plan,) = plan_rungs(llama_cpp, model, None, [rung])
    write_rungs(llama_cpp, model, None, {file: plan}, 2)

    made = {tensor.name: tensor for tensor in GGUFReader(file).tensors if tensor.tensor_type.name == rung}
    assert sorted({name.removeprefix("blk.").partition(".")[2] for name in made}) == [
        "attn_k.weight",
        "attn_output.weight",
        "attn_q.weight",
        "attn_v.weight",
        "ffn_down.weight",
        "ffn_gate.weight",
        "ffn_up.weight",
    ]
    for name, tensor in made.items():
        values = dequantize(tensor.data, tensor.tensor_type)
        assert set(np.unique(values).tolist()) == {-SCALE, 0.0, SCALE}
        assert (values == matrices[name]).all()
