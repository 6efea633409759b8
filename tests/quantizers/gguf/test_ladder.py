from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from quantizers import quantizer
from quantizers.gguf.ladder import LADDERS, NOMINAL_BITS, RUNGS, kind_of, rungs_for, unsuited
from quantpress.errors import BadInput


def test_the_ladders() -> None:
    gguf = quantizer("gguf")

    assert {name: len(rungs) for name, rungs in gguf.ladders().items()} == {
        "default": 14,
        "full": 38,
        "thebloke": 12,
        "bartowski": 24,
        "imatrix-only": 9,
        "small": 6,
    }
    assert sorted(set(gguf.default_variants({})) - set(gguf.ladders()["thebloke"])) == ["IQ3_M", "IQ4_XS"]
    assert (gguf.format, gguf.suffix, gguf.engine) == ("gguf", "GGUF", "llama.cpp")


@pytest.mark.parametrize("ladder", LADDERS)
def test_a_ladder_goes_from_few_bits_to_many(ladder: str) -> None:
    bits = [NOMINAL_BITS[rung] for rung in LADDERS[ladder]]

    assert bits == sorted(bits)
    assert len(set(LADDERS[ladder])) == len(bits)


@pytest.mark.parametrize(
    ("config", "kind", "only_here"),
    [
        ({"model_type": "llama"}, "dense", {"MXFP4"}),
        ({"model_type": "mixtral", "num_local_experts": 8}, "experts", {"MXFP4_MOE"}),
        ({"model_type": "qwen3_moe", "num_experts": 128}, "experts", {"MXFP4_MOE"}),
        ({"model_type": "deepseek_v3", "n_routed_experts": 256}, "experts", {"MXFP4_MOE"}),
        ({"model_type": "llama4", "text_config": {"num_local_experts": 16}}, "experts", {"MXFP4_MOE"}),
        ({"model_type": "dbrx", "ffn_config": {"moe_num_experts": 16}}, "experts", {"MXFP4_MOE"}),
        (
            {"model_type": "qwen3_omni_moe", "thinker_config": {"text_config": {"num_experts": 128}}},
            "experts",
            {"MXFP4_MOE"},
        ),
        ({"model_type": "ernie4_5_moe_vl", "moe_num_experts": [64, 64]}, "experts", {"MXFP4_MOE"}),
        ({"model_type": "hunyuan", "num_experts": [1, 1]}, "dense", {"MXFP4"}),
        ({"model_type": "qwen2", "num_experts": None, "text_config": None}, "dense", {"MXFP4"}),
        ({"model_type": "bitnet"}, "ternary", {"TQ1_0", "TQ2_0"}),
        (
            {"model_type": "llama", "quantization_config": {"quant_method": "bitnet"}},
            "ternary",
            {"TQ1_0", "TQ2_0"},
        ),
    ],
)
def test_the_config_decides_which_rungs_a_model_has(config: dict[str, Any], kind: str, only_here: set[str]) -> None:
    special = {"MXFP4", "MXFP4_MOE", "TQ1_0", "TQ2_0"}

    assert kind_of(config) == kind
    assert set(rungs_for(config)) & special == only_here
    assert set(RUNGS) - set(rungs_for(config)) == special - only_here


def test_why_a_model_has_no_such_rung() -> None:
    assert unsuited("TQ2_0", {"model_type": "llama"}) == "TQ2_0 is for BitNet's ternary models only"
    assert unsuited("MXFP4_MOE", {"model_type": "llama"}) == "MXFP4_MOE is for mixtures of experts only"
    assert unsuited("Q4_K_M", {"model_type": "llama"}) is None
    assert rungs_for({"num_experts": 8}, ["MXFP4", "Q8_0"]) == ["Q8_0"]


def test_the_rungs_with_larger_ends_are_made_of_others() -> None:
    ends = {rung.name: rung.type for rung in RUNGS.values() if "--token-embedding-type" in rung.options}

    assert ends == {"Q2_K_L": "Q2_K", "Q3_K_XL": "Q3_K_L", "Q4_K_L": "Q4_K_M", "Q5_K_L": "Q5_K_M", "Q6_K_L": "Q6_K"}
    assert all(NOMINAL_BITS[name] > NOMINAL_BITS[kind] for name, kind in ends.items())


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("q4_k_m", "did you mean 'Q4_K_M'"),
        ("Q5_KM", "did you mean 'Q5_K_M'"),
        ("Q3_K_XXL", "did you mean 'Q3_K_XL'"),
        ("--pure", "use one of TQ1_0, IQ1_S, TQ2_0"),
    ],
)
def test_an_unknown_rung_names_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(BadInput, match=f"unknown GGUF variant '{name}': {hint}"):
        quantizer("gguf").check_name(name)
    with pytest.raises(BadInput, match=hint):
        quantizer("gguf").variant(name, {})


def test_a_rung_goes_to_main() -> None:
    variant = quantizer("gguf").variant("Q4_K_M", {})

    assert (variant.format, variant.name, variant.branch) == ("gguf", "Q4_K_M", "main")
    assert variant.parameters["type"] == "Q4_K_M"


def test_the_quantizer_imports_nothing_heavy() -> None:
    script = (
        "import sys; from quantizers import quantizer; q = quantizer('gguf'); q.version(); q.variant('Q8_0', {});"
        "import quantizers.gguf.rung_plan, quantizers.gguf.one_pass;"
        "print(sorted({'torch', 'transformers', 'numpy', 'gguf', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
