"""The card of a model that reads images says how its projector is used, or that there is none."""

from __future__ import annotations

from typing import Any

from quantpress.card.context import CardContext
from quantpress.card.render import render_card
from tests.support import samples


def card(projector: dict[str, Any] | None) -> str:
    manifest = samples.gguf()
    details = {} if projector is None else {"projector": projector}
    entries = [
        entry.model_copy(update={"artifact": entry.artifact.model_copy(update={"details": details})})
        for entry in manifest.entries
    ]
    context = CardContext(repo_id="press/SmolLM2-135M-Instruct-GGUF", quantized_by="press")
    return render_card(manifest.model_copy(update={"entries": entries}), context)


def test_how_the_projector_is_used() -> None:
    said = card({"file": "mmproj-S-F16.gguf", "reads": ["images"], "missing": None})
    assert "**Images**: what the model needs to read images is in a file of its own" in said
    assert "(https://huggingface.co/press/SmolLM2-135M-Instruct-GGUF/resolve/main/mmproj-S-F16.gguf)" in said
    assert 'llama-mtmd-cli -hf press/SmolLM2-135M-Instruct-GGUF:Q3_K_S --image picture.jpg -p "What is this?"\n' in said
    assert "llama-server -m SmolLM2-135M-Instruct-Q3_K_S.gguf --mmproj mmproj-S-F16.gguf\n" in said


def test_sound_is_given_as_sound() -> None:
    said = card({"file": "mmproj-S-F16.gguf", "reads": ["audio"], "missing": None})
    assert "**Audio**: " in said
    assert " --audio sound.wav " in said


def test_why_there_is_none() -> None:
    said = card({"file": None, "reads": [], "missing": "the converter has none for Quagga"})
    assert "no projector could be made, for the converter has none for Quagga." in said
    assert "mmproj" not in said


def test_nothing_is_said_of_a_model_that_reads_text() -> None:
    assert "projector" not in card(None)
