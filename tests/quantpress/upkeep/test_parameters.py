"""A manifest of somebody else never chooses what a rebuild calls."""

from __future__ import annotations

from typing import Any

import pytest

from quantizers import formats, quantizer
from quantpress.errors import BadInput, Refused
from quantpress.record.recipe import Recipe
from quantpress.upkeep.parameters import require_known
from tests.support import samples

LLAMA = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "model_type": "llama"}


def recipe(format_name: str, variant: str, parameters: dict[str, Any]) -> Recipe:
    changed = {"format": format_name, "variant": variant, "parameters": parameters}
    return samples.entry("gguf", "Q8_0", bits=8.5, divergence=0.1).recipe.model_copy(update=changed)


@pytest.mark.parametrize("format_name", formats())
def test_our_own_recipes_are_known(format_name: str) -> None:
    chosen = quantizer(format_name)
    for name in {name for ladder in chosen.ladders().values() for name in ladder}:
        try:
            variant = chosen.variant(name, LLAMA)
        except Refused:
            continue
        require_known(chosen, recipe(format_name, variant.name, variant.parameters), LLAMA)


def test_a_number_may_differ_because_defaults_change() -> None:
    chosen = quantizer("gptq")
    variant = chosen.variant("gptq-4bit-64g-actorder_True", LLAMA)
    older = variant.parameters | {"damp_percent": 0.1, "scale_search_steps": 20}
    require_known(chosen, recipe("gptq", variant.name, older), LLAMA)


@pytest.mark.parametrize(
    ("format_name", "variant", "change"),
    [
        ("torchao", "int8wo", {"config": "quantize_"}),
        ("torchao", "int8wo", {"config": "__builtins__"}),
        ("torchao", "intx4wo-64g", {"weight_dtype": "load"}),
        ("torchao", "int8wo", {"dtype": "hub"}),
        ("gptq", "gptq-4bit-64g-actorder_True", {"adapter": "evil/repo"}),
        ("gptq", "gptq-4bit-64g-actorder_True", {"mse": {"a": 1}}),
        ("gptq", "gptq-4bit-64g-actorder_True", {"sym": 0}),
        ("gptq", "gptq-4bit-64g-actorder_True", {"sym": False}),
        ("compressed-tensors", "W8A8", {"scheme": "evil.Scheme"}),
        ("gguf", "Q8_0", {"options": ["--output", "/etc/passwd"]}),
        ("exl2", "4.0bpw", {"bits": "4 --out /etc"}),
    ],
)
def test_what_is_not_ours_is_refused(format_name: str, variant: str, change: dict[str, Any]) -> None:
    chosen = quantizer(format_name)
    names = {name for ladder in chosen.ladders().values() for name in ladder}
    found = chosen.variant(variant if format_name != "compressed-tensors" else sorted(names)[-1], LLAMA)
    with pytest.raises(BadInput, match=f"^the recipe of {found.name} has the parameter {next(iter(change))} = "):
        require_known(chosen, recipe(format_name, found.name, found.parameters | change), LLAMA)
