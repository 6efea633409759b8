"""Every case of ``cases/*.yaml``: a small real model is quantized by a child process as the press does it, its folder
is loaded by plain transformers, measured against rounding to the nearest, and a second run gives the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import safe_open

from quantizers import quantizer
from quantizers.protocol import CalibrationText, Job, Result
from quantpress.child import run_child
from quantpress.evaluation.job import EvaluationJob
from quantpress.evaluation.record import Evaluation, Protocol
from quantpress.evaluation.round_to_nearest import evaluate_round_to_nearest
from quantpress.evaluation.text import calibration_text, evaluation_text
from quantpress.files import sha256_of

CASES = sorted((Path(__file__).parent / "cases").glob("*.yaml"))


def quantize(case: dict[str, Any], source: Path, folder: Path) -> Result:
    config = json.loads((source / "config.json").read_text())
    text = calibration_text(None, folder / "texts")
    job = Job(
        step="quantize",
        variant=quantizer(case["format"]).variant(case["variant"], config),
        model_name="SmolLM2-135M-Instruct",
        source=source,
        prepared=folder / "prepared",
        out=folder / "out",
        calibration=CalibrationText(name=text.name, path=text.path, sha256=text.sha256, samples=8, length=128),
        threads=2,
        device="cpu",
    )
    return run_child("quantizers.job", job, Result, folder)


def measurement(model: Path, folder: Path, **options: Path) -> EvaluationJob:
    text = evaluation_text(None, folder / "texts")
    return EvaluationJob(
        engine="transformers",
        model=model,
        protocol=Protocol(text=text.name, text_sha256=text.sha256, n_ctx=128, windows=6),
        text=text.path,
        threads=2,
        device="cpu",
        **options,
    )


def measure(model: Path, folder: Path, **options: Path) -> Evaluation:
    return run_child("quantpress.evaluation.job", measurement(model, folder, **options), Evaluation, folder)


@pytest.mark.slow
@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_case(file: Path, tiny_model: Path, tmp_path: Path) -> None:
    case = yaml.safe_load(file.read_text())
    variant = quantizer(case["format"]).variant(case["variant"], json.loads((tiny_model / "config.json").read_text()))
    assert (variant.name, variant.branch) == (case["name"], case["branch"])

    result = quantize(case, tiny_model, tmp_path / "first")

    made = tmp_path / "first" / "out"
    output = result.output
    assert output is not None
    # Two layers of 3 538 944 weights are packed; embeddings and norms stay as they were.
    assert output.tensor_types == {case["packed"]: 7_077_888, "float16": 28_314_432}
    assert output.bits_per_weight == pytest.approx((7_077_888 * 4.3 + 28_314_432 * 16) / 35_392_320, rel=0.01)
    assert output.files == sorted(path.name for path in made.iterdir())
    assert "model.safetensors" in output.files
    assert json.loads((made / "config.json").read_text())["quantization_config"]["quant_method"] == case["quant_method"]
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert sha256_of(made / name) == sha256_of(tiny_model / name)
    for name in output.files:
        assert str(tmp_path).encode() not in (made / name).read_bytes()
    with safe_open(made / "model.safetensors", "pt") as tensors:
        names = [name.removeprefix("model.layers.0.self_attn.") for name in tensors.keys()]  # noqa: SIM118 (no dict)
        assert {"q_proj.qweight", "q_proj.qzeros", "q_proj.scales"} <= set(names)

    base = measure(tiny_model, tmp_path / "base", save_logits=tmp_path / "logits")
    found = measure(made, tmp_path / "measured", base_logits=tmp_path / "logits")
    assert found.token_sha256 == base.token_sha256
    assert found.non_finite == 0
    assert found.divergence is not None
    yardstick = evaluate_round_to_nearest(
        measurement(tiny_model, tmp_path / "base", base_logits=tmp_path / "logits"),
        bits=variant.parameters["bits"],
        group_size=variant.parameters["group_size"],
        symmetric=case["symmetric"],
    )
    assert yardstick.divergence is not None
    assert 0 < found.divergence.mean < yardstick.divergence.mean

    again = quantize(case, tiny_model, tmp_path / "second")
    assert again.output == output
    for name in output.files:
        assert sha256_of(tmp_path / "second" / "out" / name) == sha256_of(made / name)
