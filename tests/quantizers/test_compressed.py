from __future__ import annotations

import pytest

from quantizers import quantizer
from quantpress.errors import BadInput, Refused

SMOLLM2 = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "head_dim": 64}
LLAMA3 = {"hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32}


def test_w4a16_is_the_default_with_the_largest_group_size_that_fits() -> None:
    compressed = quantizer("compressed-tensors")

    assert compressed.default_variants(LLAMA3) == ["W4A16-G128"]
    assert compressed.default_variants(SMOLLM2) == ["W4A16-G64"]
    assert compressed.variant("W4A16", SMOLLM2).branch == "main"
    assert compressed.variant("W4A16-G32", SMOLLM2).branch == "W4A16-G32"
    assert compressed.variant("W4A16-G64", SMOLLM2).nominal_bits == 4.25


def test_a_group_size_that_the_model_cannot_have_is_refused() -> None:
    with pytest.raises(Refused, match="group size 128 does not divide hidden_size 576"):
        quantizer("compressed-tensors").variant("W4A16-G128", SMOLLM2)


def test_eight_bit_schemes_have_no_groups() -> None:
    compressed = quantizer("compressed-tensors")
    odd = {"hidden_size": 100, "intermediate_size": 300, "num_attention_heads": 5}

    assert compressed.variant("W8A8", odd).parameters["scheme"] == "W8A8"
    assert compressed.variant("FP8-Dynamic", odd).parameters == {
        "scheme": "FP8_DYNAMIC",
        "algorithm": "GPTQ",
        "damp_percent": 0.01,
    }


def test_unknown_names_and_experts() -> None:
    with pytest.raises(BadInput, match="did you mean 'FP8-Dynamic'"):
        quantizer("compressed-tensors").check_name("FP8-dynamic")
    with pytest.raises(Refused, match="8 experts"):
        quantizer("compressed-tensors").variant("W8A8", SMOLLM2 | {"num_local_experts": 8})
