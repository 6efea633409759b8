"""The card says what llama.cpp does otherwise than transformers."""

from __future__ import annotations

from typing import Any

from quantpress.card.context import CardContext
from quantpress.card.render import render_card
from tests.support import samples


def card(details: dict[str, Any]) -> str:
    manifest = samples.gguf()
    entries = [
        entry.model_copy(update={"artifact": entry.artifact.model_copy(update={"details": details})})
        for entry in manifest.entries
    ]
    context = CardContext(repo_id="press/SmolLM2-135M-Instruct-GGUF", quantized_by="press")
    return render_card(manifest.model_copy(update={"entries": entries}), context)


def test_strings_with_other_tokens_are_named() -> None:
    said = card({"engines": {"strings": ["emoji", "combining marks"], "template": None}})
    assert "**Tokenizer.** llama.cpp gives other tokens than transformers for: emoji, combining marks." in said
    assert "**Chat template.**" not in said


def test_a_template_that_llama_cpp_cannot_render_is_said() -> None:
    said = card({"engines": {"strings": [], "template": "llama.cpp does not render it (Unknown filter x)"}})
    assert (
        "**Chat template.** llama.cpp was not found to make the prompts that transformers makes: "
        "`llama.cpp does not render it (Unknown filter x)`"
    ) in said
    assert "**Tokenizer.**" not in said


def test_nothing_is_said_where_both_agree() -> None:
    assert "**Tokenizer.**" not in card({}) and "**Chat template.**" not in card({})
