"""A vision-language model becomes a projector and a ladder of text models. Both engines measure its language model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader

from quantizers import quantizer
from quantizers.checkpoint.widths import input_widths
from quantizers.gguf.preflight import check_source
from quantizers.gguf.projector import ProjectorReport, make_projector, projector_report, registered
from quantizers.protocol import CalibrationText, Job, Result
from quantpress.evaluation.job import EvaluationJob
from quantpress.files import sha256_of
from quantpress.gate.judge import require_agreement
from quantpress.machine.child import run_child
from quantpress.record.measurement import Evaluation, Protocol
from quantpress.toolchain.llama_cpp import LlamaCpp
from tests.support.vision_model import IMAGE, LAYERS, PATCH, VISION_LAYERS, VISION_WIDTH, WIDTH, write_vision_model

NAME = "Vision"


@pytest.fixture(scope="module")
def source(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vision_model(tmp_path_factory.mktemp("vision"), tiny_model)


@pytest.fixture
def spoiled(source: Path, tmp_path: Path) -> Path:
    """A copy of the source that a test may change."""
    return Path(shutil.copytree(source, tmp_path / "source"))


def config_of(source: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((source / "config.json").read_bytes())
    return found


def make_job(source: Path, folder: Path, text: Path, rung: str = "Q8_0") -> Job:
    return Job(
        step="quantize",
        variant=quantizer("gguf").variant(rung, config_of(source)),
        model_name=NAME,
        source=source,
        prepared=folder / "prepared",
        out=folder / rung,
        calibration=CalibrationText(name="english", path=text, sha256=sha256_of(text), samples=2, length=64),
        threads=2,
        device="cpu",
    )


@pytest.fixture(scope="module")
def pressed(llama_cpp: LlamaCpp, source: Path, english: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose ``prepared`` two children made. The first was killed when it had the model; the second went on."""
    folder = tmp_path_factory.mktemp("pressed")
    job = make_job(source, folder, english).model_copy(update={"step": "prepare"})
    (folder / "job.json").write_text(job.model_dump_json())
    command = [sys.executable, "-m", "quantizers.job", str(folder / "job.json"), str(folder / "result.json")]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    model = folder / "prepared" / f"{NAME}-BF16.gguf"
    while not model.exists():
        assert first.poll() is None
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    made = model.stat().st_ino, model.stat().st_mtime_ns
    (folder / "prepared" / f".mmproj-{NAME}-F16.gguf.1.tmp").write_bytes(b"half")

    run_child("quantizers.job", job, Result, folder / "job")

    assert (model.stat().st_ino, model.stat().st_mtime_ns) == made
    return folder


@pytest.mark.slow
def test_a_killed_preparation_leaves_all_files_whole(pressed: Path, source: Path, english: Path) -> None:
    names = [f"{NAME}-BF16.gguf", f"{NAME}.imatrix.gguf", f"{NAME}.imatrix.json", f"mmproj-{NAME}-F16.gguf"]

    assert sorted(path.name for path in (pressed / "prepared").iterdir()) == [
        *names,
        f"mmproj-{NAME}.json",
        "ollama",
    ]
    shared = quantizer("gguf").shared_files(make_job(source, pressed, english))
    assert [path.name for path in shared] == [names[1], "params", "system", "template", names[3]]
    assert all(path.is_file() for path in shared)


@pytest.mark.slow
def test_the_projector_is_the_sources_encoder(pressed: Path, source: Path) -> None:
    reader = GGUFReader(pressed / "prepared" / f"mmproj-{NAME}-F16.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {tensor.name: tensor for tensor in reader.tensors}

    assert (fields["general.type"], fields["general.architecture"]) == ("mmproj", "clip")
    assert (fields["clip.has_vision_encoder"], fields["clip.projector_type"]) == (True, "idefics3")
    assert fields["clip.vision.projection_dim"] == WIDTH
    assert fields["clip.vision.embedding_length"] == VISION_WIDTH
    assert fields["clip.vision.block_count"] == VISION_LAYERS
    assert (fields["clip.vision.image_size"], fields["clip.vision.patch_size"]) == (IMAGE, PATCH)
    assert {name.split(".")[0] for name in tensors} == {"v", "mm"}
    assert sum(name.startswith("v.blk.") and name.endswith(".ffn_up.weight") for name in tensors) == VISION_LAYERS
    assert tensors["mm.model.fc.weight"].tensor_type.name == "F16"
    import torch
    from safetensors.torch import load_file

    stored = load_file(source / "model.safetensors")["model.connector.modality_projection.proj.weight"]
    assert torch.equal(torch.from_numpy(np.array(tensors["mm.model.fc.weight"].data)), stored.to(torch.float16))


@pytest.mark.slow
def test_a_rung_holds_the_language_model_alone(pressed: Path, source: Path, english: Path) -> None:
    job = make_job(source, pressed, english)
    job.out.mkdir()
    (output,) = quantizer("gguf").quantize_wave([job])

    assert output.files == [f"{NAME}-Q8_0.gguf"]
    reader = GGUFReader(job.out / output.files[0])
    assert reader.fields["general.architecture"].contents() == "llama"
    assert reader.fields["llama.block_count"].contents() == LAYERS
    assert {tensor.name.split(".")[0] for tensor in reader.tensors} == {"blk", "output", "output_norm", "token_embd"}
    assert output.details["projector"] == {"file": f"mmproj-{NAME}-F16.gguf", "reads": ["images"], "missing": None}
    assert set(output.tensor_types) == {"Q8_0", "F32"}


@pytest.mark.slow
def test_both_engines_measure_the_language_model(pressed: Path, source: Path, english: Path) -> None:
    protocol = Protocol(text="english", text_sha256=sha256_of(english), n_ctx=128, windows=4)

    def measure(engine: str, model: Path) -> Evaluation:
        job = EvaluationJob.model_validate(
            {"engine": engine, "model": model, "protocol": protocol, "text": english, "threads": 2, "device": "cpu"}
        )
        return run_child("quantpress.evaluation.job", job, Evaluation, pressed / f"evaluation-{engine}")

    reference = measure("transformers", source)
    by_llama_cpp = measure("llama.cpp", quantizer("gguf").unquantized(make_job(source, pressed, english)))

    assert reference.perplexity > 49152 / 2  # the stored weights are random
    require_agreement(reference, by_llama_cpp)


def test_the_registry_is_the_converters(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    from dataclasses import replace

    names = registered(llama_cpp)

    assert {"SmolVLMForConditionalGeneration", "Gemma3ForConditionalGeneration", "Qwen2VLModel"} <= names
    assert "LlamaForCausalLM" not in names
    assert registered(replace(llama_cpp, source=tmp_path)) == frozenset()


def test_a_model_that_reads_text_alone_has_no_projector(llama_cpp: LlamaCpp, tiny_model: Path, tmp_path: Path) -> None:
    make_projector(llama_cpp, tiny_model, tmp_path, "Tiny")

    assert (list(tmp_path.iterdir()), projector_report(tmp_path, "Tiny")) == ([], None)


@pytest.mark.slow
def test_an_architecture_without_a_projector_is_said(llama_cpp: LlamaCpp, spoiled: Path, tmp_path: Path) -> None:
    config = config_of(spoiled) | {"architectures": ["QuaggaForConditionalGeneration"]}
    (spoiled / "config.json").write_text(json.dumps(config))

    check_source(llama_cpp, spoiled, NAME, "BF16", "cpu")
    make_projector(llama_cpp, spoiled, tmp_path / "prepared", NAME)

    assert projector_report(tmp_path / "prepared", NAME) == ProjectorReport(
        missing=f"the converter of {llama_cpp.version} has none for QuaggaForConditionalGeneration"
    )
    assert [path.name for path in (tmp_path / "prepared").iterdir()] == [f"mmproj-{NAME}.json"]


@pytest.mark.slow
def test_a_projector_that_cannot_be_made_is_said(llama_cpp: LlamaCpp, spoiled: Path, tmp_path: Path) -> None:
    (spoiled / "preprocessor_config.json").unlink()

    make_projector(llama_cpp, spoiled, tmp_path / "prepared", NAME)

    assert projector_report(tmp_path / "prepared", NAME) == ProjectorReport(
        missing=f"the converter of {llama_cpp.version} failed on it (KeyError: 'image_mean')"
    )


def test_widths_are_the_language_models(source: Path) -> None:
    assert input_widths(config_of(source))["hidden_size 64, inputs of attention, gate and up projections"] == WIDTH
