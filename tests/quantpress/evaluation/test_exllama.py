"""The ExLlama engine gets a forward pass of transformers, so its figures must be those of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quantpress.errors import Refused
from quantpress.evaluation.engines import transformers
from quantpress.evaluation.engines.exllama import ExLlamaModel, measured, require_cuda
from quantpress.evaluation.job import EvaluationJob
from quantpress.files import sha256_of
from quantpress.record.measurement import Protocol


@pytest.mark.slow
def test_the_figures_are_those_of_the_forward_pass_it_is_given(tiny_model: Path, english: Path) -> None:
    job = EvaluationJob(
        engine="transformers",
        model=tiny_model,
        protocol=Protocol(text="english", text_sha256=sha256_of(english), n_ctx=64, windows=3),
        text=english,
        threads=1,
        device="cpu",
    )
    expected = transformers.evaluate(job)
    loaded = transformers.load_model(tiny_model, "cpu", 1)

    def forward(ids: Any, kept: int) -> Any:
        return loaded(ids).logits[:, -kept:]

    found = measured(job, ExLlamaModel(forward), "exllamav3", "1.6.5, torch 2")

    assert (found.engine, found.engine_version, found.dtype) == ("exllamav3", "1.6.5, torch 2", "float16")
    assert found.perplexity == pytest.approx(expected.perplexity, rel=1e-6)
    assert (found.token_sha256, found.scored_tokens) == (expected.token_sha256, expected.scored_tokens)
    assert found.sample == expected.sample
    assert found.generation_tokens_per_second is not None and found.generation_tokens_per_second > 0
    # The file holds 35 392 320 weights of 16 bits.
    assert found.weights_bytes == 70_784_640


def test_a_processor_is_refused() -> None:
    with pytest.raises(Refused, match="needs a CUDA runner"):
        require_cuda("cpu")
