from __future__ import annotations

import subprocess
import sys

import pytest

from quantizers import quantizer
from quantpress.errors import BadInput, Refused

SMOLLM2 = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "head_dim": 64}
LLAMA3 = {"hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32}


def test_the_default_is_on_main_with_the_largest_group_size_that_fits() -> None:
    gptq = quantizer("gptq")

    assert gptq.default_variants(SMOLLM2) == ["gptq-4bit-64g-actorder_False"]
    assert gptq.default_variants(LLAMA3) == ["gptq-4bit-128g-actorder_False"]
    variant = gptq.variant("gptq-4bit-auto", SMOLLM2)
    assert (variant.name, variant.branch) == ("gptq-4bit-64g-actorder_False", "main")
    assert (variant.parameters["bits"], variant.parameters["group_size"]) == (4, 64)
    assert variant.parameters["desc_act"] is False


def test_other_variants_are_branches_of_their_own_name() -> None:
    variant = quantizer("gptq").variant("gptq-8bit--1g-actorder_True", SMOLLM2)

    assert variant.branch == "gptq-8bit--1g-actorder_True"
    assert (variant.parameters["bits"], variant.parameters["group_size"]) == (8, -1)
    assert variant.parameters["desc_act"] is True


def test_theblokes_branches() -> None:
    gptq = quantizer("gptq")

    assert [gptq.variant(name, LLAMA3).branch for name in gptq.ladders()["thebloke"]] == [
        "main",
        "gptq-4bit-128g-actorder_True",
        "gptq-4bit-64g-actorder_True",
        "gptq-4bit-32g-actorder_True",
        "gptq-8bit--1g-actorder_True",
        "gptq-8bit-128g-actorder_True",
        "gptq-3bit-128g-actorder_True",
    ]


@pytest.mark.parametrize("format_name", ["gptq", "awq"])
def test_an_architecture_that_gptqmodel_does_not_know_is_refused(format_name: str) -> None:
    chosen = quantizer(format_name)

    with pytest.raises(Refused, match="GPTQModel does not know the architecture 'strange'"):
        chosen.variant(f"{format_name}-4bit-auto", LLAMA3 | {"model_type": "strange"})
    for known in ("llama", "qwen3_moe", "mistral", "gemma2"):
        assert chosen.variant(f"{format_name}-4bit-auto", LLAMA3 | {"model_type": known}).branch == "main"


def test_widths_that_cannot_be_packed_are_refused() -> None:
    odd = SMOLLM2 | {"hidden_size": 560, "intermediate_size": 1536}

    with pytest.raises(Refused, match=r"^hidden_size 560, .*is not divisible by 32: weights are packed into whole"):
        quantizer("gptq").variant("gptq-3bit--1g-actorder_True", odd)


def test_a_group_size_that_the_model_cannot_have_is_refused() -> None:
    with pytest.raises(Refused, match=r"group size 128 does not divide hidden_size 576.*use 64 or 32"):
        quantizer("gptq").variant("gptq-4bit-128g-actorder_True", SMOLLM2)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("gptq-4bit-128g", "gptq-4bit-128g-actorder_True"),
        ("gptq-4bit-16g-actorder_True", "gptq-4bit-64g-actorder_True"),
        ("4bit-auto", "gptq-4bit-auto"),
        ("gptq-4bit-128g-actorder_True/../x", "gptq-4bit-128g-actorder_True"),
    ],
)
def test_an_unknown_name_hints_at_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(BadInput, match="unknown GPTQ variant") as bad:
        quantizer("gptq").check_name(name)
    assert f"did you mean {nearest!r}?" in str(bad.value)


def test_naming_and_planning_import_nothing_heavy() -> None:
    script = (
        "import sys; from quantizers import quantizer\n"
        "for name in ('gptq', 'awq'): q = quantizer(name); q.ladders(); print(q.version())\n"
        "assert not {'torch', 'transformers', 'gptqmodel'} & set(sys.modules)\n"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    assert said.startswith("gptqmodel 7.")
