"""GPTQ and AWQ on CUDA through the same child processes as on a CPU. Run by hand: ``pytest tests/gpu``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from quantizers import quantizer
from quantizers.protocol import CalibrationText, Job, Result
from quantpress.child import run_child
from quantpress.evaluation.job import EvaluationJob
from quantpress.evaluation.record import Evaluation, Protocol
from quantpress.files import sha256_of

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]


def measure(model: Path, text: Path, folder: Path, **options: Any) -> Evaluation:
    digest = hashlib.sha256(text.read_bytes()).hexdigest()
    job = EvaluationJob(
        engine="transformers",
        model=model,
        protocol=Protocol(text="custom", text_sha256=digest, n_ctx=128, windows=6),
        text=text,
        threads=4,
        device="cuda",
        **options,
    )
    return run_child("quantpress.evaluation.job", job, Evaluation, folder)


@pytest.mark.parametrize("format_name", ["gptq", "awq"])
def test_quantized_and_measured_on_cuda(format_name: str, tiny_model: Path, english: Path, tmp_path: Path) -> None:
    config = json.loads((tiny_model / "config.json").read_text())
    job = Job(
        step="quantize",
        variant=quantizer(format_name).variant(f"{format_name}-4bit-auto", config),
        model_name="SmolLM2-135M-Instruct",
        source=tiny_model,
        prepared=tmp_path / "prepared",
        out=tmp_path / "out",
        calibration=CalibrationText(name="english", path=english, sha256=sha256_of(english), samples=8, length=128),
        threads=4,
        device="cuda",
    )

    result = run_child("quantizers.job", job, Result, tmp_path / "job")

    assert result.output is not None
    assert result.output.tensor_types == {"int4": 7_077_888, "float16": 28_314_432}
    measure(tiny_model, english, tmp_path / "base", save_logits=tmp_path / "logits")
    found = measure(tmp_path / "out", english, tmp_path / "measured", base_logits=tmp_path / "logits")
    assert found.non_finite == 0
    assert found.divergence is not None
    assert 0 < found.divergence.mean < 1
