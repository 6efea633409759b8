"""Every case of ``cases/*.yaml``: a child process quantizes a small real model, plain transformers loads the folder and
measures it, and a second child makes the same bytes. ``tests/gpu`` has the cases that need CUDA.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import safe_open

from quantizers import formats, quantizer
from quantizers.protocol import CalibrationText, Job, Output, Result
from quantpress.errors import Refused
from quantpress.evaluation.job import EvaluationJob
from quantpress.evaluation.round_to_nearest import evaluate_round_to_nearest
from quantpress.evaluation.text import calibration_text, evaluation_text
from quantpress.files import sha256_of
from quantpress.machine.child import run_child
from quantpress.record.measurement import Protocol

CASES = [yaml.safe_load(file.read_text()) for file in sorted((Path(__file__).parent / "cases").glob("*.yaml"))]
#: The tiny model has two layers, each with 3 538 944 weights in linears. Embeddings and norms are the rest.
IN_LINEARS, OTHERS = 7_077_888, 28_314_432

#: A program that loads folders and generates, and that can import nothing of this repository.
PLAIN = """
import sys
sys.modules["quantpress"] = sys.modules["quantizers"] = None
from transformers import AutoModelForCausalLM, AutoTokenizer
for folder in sys.argv[1:]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu")
    model.generate(**tokenizer("The sky is", return_tensors="pt"), max_new_tokens=2, min_new_tokens=2)
    print("loaded", folder, flush=True)
"""


def job_for(case: dict[str, Any], source: Path, folder: Path) -> Job:
    config = json.loads((source / "config.json").read_text())
    text = calibration_text(None, folder / "texts")
    return Job(
        step="quantize",
        variant=quantizer(case["format"], case.get("backend")).variant(case["variant"], config),
        model_name="SmolLM2-135M-Instruct",
        source=source,
        prepared=folder / "prepared",
        out=folder / case["name"],
        calibration=CalibrationText(name=text.name, path=text.path, sha256=text.sha256, samples=8, length=128),
        threads=1,
        device="cpu",
    )


def quantized(case: dict[str, Any], source: Path, folder: Path) -> Output:
    output = run_child("quantizers.job", job_for(case, source, folder), Result, folder / "job").output
    assert output is not None
    return output


def measurement(model: Path, folder: Path, **options: Path) -> EvaluationJob:
    text = evaluation_text(None, folder)
    return EvaluationJob(
        engine="transformers",
        model=model,
        protocol=Protocol(text=text.name, text_sha256=text.sha256, n_ctx=128, windows=6),
        text=text.path,
        threads=1,
        device="cpu",
        **options,
    )


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A dict from format to the folder that this run of the tests made for it."""
    return {}


@pytest.fixture(scope="session")
def base_logits(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unquantized model's log-probabilities."""
    from quantpress.evaluation.engines.transformers import evaluate

    folder = tmp_path_factory.mktemp("base")
    assert evaluate(measurement(tiny_model, folder, save_logits=folder / "logits")).non_finite == 0
    return folder / "logits"


@pytest.fixture(scope="module", autouse=True)
def uncompiled() -> Iterator[None]:
    """Turns off torch.compile for GPTQModel's kernel: compiling took 14 of the 36 CPU seconds of GPTQ's cases.

    The children of tests/flows/test_nightly.py measure GPTQ with torch.compile as it is.
    """
    import torch

    torch.compiler.set_stance("force_eager")
    yield
    torch.compiler.set_stance("default")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['format']}-{case['name']}")
def test_case(
    case: dict[str, Any],
    tiny_model: Path,
    base_logits: Path,
    made: dict[str, Path],
    tmp_path: Path,
) -> None:
    from quantpress.evaluation.engines.transformers import evaluate

    chosen = quantizer(case["format"], case.get("backend"))
    if "backend" in case:
        try:
            chosen.version()
        except Refused as refusal:
            pytest.skip(str(refusal))
    variant = chosen.variant(case["variant"], json.loads((tiny_model / "config.json").read_text()))
    assert (variant.name, variant.branch) == (case["name"], case["branch"])
    assert variant.parameters | case["parameters"] == variant.parameters

    with ThreadPoolExecutor(2) as pool:
        output, again = pool.map(lambda run: quantized(case, tiny_model, tmp_path / run), ("first", "second"))

    folder = tmp_path / "first" / case["name"]
    assert again == output
    assert output.files == sorted(path.name for path in folder.iterdir())
    for name in output.files:
        assert sha256_of(tmp_path / "second" / case["name"] / name) == sha256_of(folder / name)
        assert str(tmp_path).encode() not in (folder / name).read_bytes()
    assert output.tensor_types == case["weights"]
    whole = (IN_LINEARS * case["bits_per_quantized_weight"] + OTHERS * 16) / (IN_LINEARS + OTHERS)
    assert output.bits_per_weight == pytest.approx(whole, rel=0.001)
    config = json.loads((folder / "config.json").read_text())
    assert config.get("quantization_config", {}).get("quant_method") == case["quant_method"]
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert sha256_of(folder / name) == sha256_of(tiny_model / name)
    with safe_open(folder / "model.safetensors", "pt") as tensors:
        names = set(tensors.keys())
    assert {f"model.layers.0.self_attn.q_proj.{part}" for part in case["tensors"]} <= names

    found = evaluate(measurement(folder, tmp_path, base_logits=base_logits))
    assert found.non_finite == 0
    assert found.divergence is not None
    if rounding := case.get("better_than_rounding"):
        yardstick = evaluate_round_to_nearest(measurement(tiny_model, tmp_path, base_logits=base_logits), **rounding)
        assert yardstick.divergence is not None
        limit = yardstick.divergence.mean
    else:
        limit = case["largest_divergence"]
    assert 0 < found.divergence.mean < limit
    made[case["format"]] = folder


@pytest.mark.slow
def test_transformers_alone_loads_what_the_cases_made(made: dict[str, Path], tmp_path: Path) -> None:
    if not made:
        pytest.skip("no case ran before")
    command = [sys.executable, "-I", "-c", PLAIN, *map(str, made.values())]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    assert ran.returncode == 0, ran.stderr
    # Some libraries print a greeting.
    loaded = [line for line in ran.stdout.splitlines() if line.startswith("loaded ")]
    assert loaded == [f"loaded {folder}" for folder in made.values()]


def scheme(variant: str) -> str:
    """A variant's name without its group size, and without the bits per weight that EXL mixes."""
    return re.sub(r"-(-1|\d+)g|-G\d+|-auto|\d\.\d(?=bpw)", "", variant)


def test_every_scheme_of_every_ladder_of_checkpoints_has_a_case() -> None:
    wide = {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32}
    chosen = [quantizer(name) for name in formats() if quantizer(name).engine != "llama.cpp"]
    variants = [each.variant(name, wide) for each in chosen for ladder in each.ladders().values() for name in ladder]
    on_gpu = [yaml.safe_load(file.read_text()) for file in (Path(__file__).parents[1] / "gpu" / "cases").glob("*.yaml")]

    wanted = {(each.format, scheme(each.name)) for each in variants if not each.needs_cuda}
    assert wanted == {(case["format"], scheme(case["name"])) for case in CASES}
    only_there = {(each.format, scheme(each.name)) for each in variants if each.needs_cuda}
    assert only_there <= {(case["format"], scheme(case["variant"])) for case in on_gpu}
