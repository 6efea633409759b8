"""Cards of formats whose quantizers read no calibration text, or read it only for some variants."""

from __future__ import annotations

import pytest

from quantizers import quantizer
from quantpress.card.context import CardContext
from quantpress.card.render import render_card
from quantpress.record.manifest import Artifact, Entry, File, Manifest
from tests.support import samples

LLAMA3 = {"hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32}


def card(format_name: str, ladder: str, calibrated: tuple[str, ...] = ()) -> str:
    """The card of a repo with every variant of a ladder (a list of variants). Those in ``calibrated`` read a text."""
    chosen = quantizer(format_name)
    entries = []
    for name in chosen.ladders()[ladder]:
        variant = chosen.variant(name, LLAMA3)
        sample = samples.entry(format_name, variant.name, bits=8.0, divergence=0.01, branch=variant.branch)
        recipe = sample.recipe.model_copy(update={"parameters": variant.parameters})
        artifact = Artifact(
            files=[File(path="model.safetensors", size=10**9, sha256="d" * 64)],
            bits_per_weight=8.0,
            tensor_types={"int8": 10**9},
            details={"calibration_tokens": 1024 if variant.name in calibrated else 0},
        )
        entries.append(Entry.model_validate(sample.model_dump() | {"recipe": recipe, "artifact": artifact}))
    manifest = Manifest.model_validate(
        samples.gptq().model_dump() | {"format": format_name, "entries": [entry.model_dump() for entry in entries]}
    )
    repo_id = f"press/Llama-3-8B-{chosen.suffix}"
    return render_card(manifest, CardContext(repo_id=repo_id, quantized_by="press"))


@pytest.mark.parametrize(
    ("format_name", "ladder", "requirements"),
    [
        ("torchao", "all", "pip install transformers torchao"),
        ("bitsandbytes", "all", "pip install transformers accelerate bitsandbytes"),
        ("reference", "default", "pip install transformers"),
    ],
)
def test_what_read_no_calibration_text_names_none(format_name: str, ladder: str, requirements: str) -> None:
    text = card(format_name, ladder)

    assert "pydoc-topics" not in text and "Calibration text" not in text
    assert f"**transformers** (`{requirements}`)" in text
    assert f'repo = "press/Llama-3-8B-{quantizer(format_name).suffix}"' in text
    assert f"vllm serve press/Llama-3-8B-{quantizer(format_name).suffix}\n" in text


def test_each_variant_of_compressed_tensors_says_what_it_was_calibrated_on() -> None:
    text = card("compressed-tensors", "all", calibrated=("W4A16-G128", "W8A8", "FP8-Dynamic"))

    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if "GPTQ |" in line}
    for branch in ("main", "W8A8", "FP8-Dynamic"):
        assert rows[branch].endswith("| pydoc-topics | 128 \u00d7 512 |")
    assert "pip install transformers compressed-tensors" in text


@pytest.mark.parametrize(
    ("format_name", "settings"),
    [
        ("gptq", 'GPTQConfig(bits=4, backend="gptq_torch")'),
        ("awq", 'AwqConfig(bits=4, backend="torch_awq")'),
        ("torchao", None),
    ],
)
def test_the_kernel_that_always_loads_is_on_the_card(format_name: str, settings: str | None) -> None:
    """On an H100, GPTQModel's own choice did not load a GPTQ checkpoint of SmolLM2: Machete takes no 192 outputs."""
    text = card(format_name, "default")

    assert (f"plain = {settings}" in text) == (settings is not None)
    assert ("quantization_config=plain, device_map=" in text) == (settings is not None)


def test_the_reference_card_says_what_it_is_for() -> None:
    text = card("reference", "default", calibrated=("llm-int8",))

    assert "**For study, not for use.**" in text
    assert "arXiv:2208.07339" in text
