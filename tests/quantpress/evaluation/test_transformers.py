from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantpress.errors import BadInput
from quantpress.evaluation.engines.transformers import evaluate, tokenize
from quantpress.evaluation.generate import GenerationJob, generate
from quantpress.evaluation.job import EvaluationJob
from quantpress.evaluation.logits import read_header, read_windows
from quantpress.evaluation.round_to_nearest import evaluate_round_to_nearest
from quantpress.record.measurement import Protocol

pytestmark = pytest.mark.slow


def job(model: Path, text: Path, windows: int = 5, n_ctx: int = 64, **options: Any) -> EvaluationJob:
    digest = hashlib.sha256(text.read_bytes()).hexdigest()
    protocol = Protocol(text="custom", text_sha256=digest, n_ctx=n_ctx, windows=windows)
    return EvaluationJob(
        engine="transformers", model=model, protocol=protocol, text=text, threads=2, device="cpu", **options
    )


def test_the_procedure_is_the_naive_one(tiny_model: Path, english: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(tiny_model)(english.read_text())["input_ids"]
    losses = []
    for start in range(0, 5 * 64, 64):
        window = torch.tensor([ids[start : start + 64]])
        with torch.inference_mode():
            log_probs = model(window).logits[0].double().log_softmax(-1)
        losses += [-float(log_probs[at, window[0, at + 1]]) for at in range(32, 63)]

    found = evaluate(job(tiny_model, english, save_logits=tmp_path / "logits"))

    assert found.perplexity == pytest.approx(np.exp(np.mean(losses)), rel=1e-4)
    error = found.perplexity * np.std(losses) / np.sqrt(len(losses) - 1)
    assert found.perplexity_error == pytest.approx(error, rel=1e-3)
    assert (found.scored_tokens, found.non_finite, found.divergence) == (5 * 31, 0, None)
    assert found.generation_tokens_per_second is not None and found.generation_tokens_per_second > 0
    # Two layers and embeddings, in float32. The embeddings are also the output head, but count once.
    assert found.weights_bytes == pytest.approx(4 * sum(p.numel() for p in model.parameters()), rel=1e-3)
    assert (found.dtype, found.peak_device_memory_bytes) == ("float32", None)
    assert found.runner is not None and found.runner.endswith(", 2 threads")
    assert found.token_sha256 == hashlib.sha256(np.array(ids[: 5 * 64], dtype="<i4").tobytes()).hexdigest()
    header = read_header(tmp_path / "logits")
    assert header.tokens.flatten().tolist() == ids[: 5 * 64]
    stored = [float(row[header.tokens[0, 33 + at]]) for at, row in enumerate(next(read_windows(tmp_path / "logits")))]
    # The file raises values more than 16 nats below a row's top to that floor. The cut model is often that wrong.
    likely = [at for at, loss in enumerate(losses[:31]) if loss < 15]
    assert len(likely) > 5
    assert [stored[at] for at in likely] == pytest.approx([-losses[at] for at in likely], abs=2e-3)


def test_divergence_grows_with_coarser_rounding(tiny_model: Path, english: Path, tmp_path: Path) -> None:
    evaluate(job(tiny_model, english, save_logits=tmp_path / "logits"))
    against = job(tiny_model, english, base_logits=tmp_path / "logits")

    itself = evaluate(against).divergence
    rounded = [
        evaluate_round_to_nearest(against, bits=bits, group_size=64, symmetric=False).divergence for bits in (8, 4, 2)
    ]

    assert itself is not None and abs(itself.mean) < 1e-4 and itself.same_top > 0.98
    means = [divergence.mean for divergence in rounded if divergence is not None]
    assert 0 < means[0] < means[1] < means[2]


def test_a_base_of_other_tokens_is_refused(tiny_model: Path, english: Path, tmp_path: Path) -> None:
    evaluate(job(tiny_model, english, windows=2, save_logits=tmp_path / "logits"))

    with pytest.raises(BadInput, match="made of other tokens"):
        evaluate(job(tiny_model, english, windows=3, base_logits=tmp_path / "logits"))


def test_too_short_a_text(tiny_model: Path, tmp_path: Path) -> None:
    text = tmp_path / "short.txt"
    text.write_text("Too short.")

    with pytest.raises(BadInput, match="0 windows of 64, but 5 are asked for"):
        evaluate(job(tiny_model, text))


def test_special_tokens_in_a_text_are_plain_text(tiny_model: Path, tmp_path: Path) -> None:
    text = tmp_path / "special.txt"
    text.write_text("a<|im_end|>" * 20)

    found = tokenize(tiny_model, text, n_ctx=32, windows=2)

    assert found.bos is None
    assert 2 not in found.windows  # the id of <|im_end|>


def test_pickled_weights_are_not_read(tiny_model: Path, english: Path, tmp_path: Path) -> None:
    import torch

    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny_model / name).read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")

    with pytest.raises(OSError, match="safetensors"):
        evaluate(job(tmp_path, english))


def test_the_demo_model_speaks_english(demo_model: Path) -> None:
    said = generate(
        GenerationJob(
            model=demo_model,
            prompt="What is the capital of France?",
            tokens=24,
            chat=True,
            threads=2,
            device="cpu",
        )
    )

    assert "Paris" in said.text
    assert "<|im_end|>" not in said.text
