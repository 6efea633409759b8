"""The archived backends: ``gptq`` by AutoGPTQ and ``awq`` by AutoAWQ.

The tests check what the backends tell the plan. AutoAWQ also makes a checkpoint on a CPU, in its own environment.
AutoGPTQ needs CUDA.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from quantizers import backends, quantizer, quantizer_of
from quantizers.awq.autoawq import AutoAWQ
from quantizers.gptq.autogptq import AutoGPTQ
from quantizers.protocol import CalibrationText, Job, Result
from quantpress.errors import BadInput, ChildFailed, Refused
from quantpress.files import sha256_of
from quantpress.machine.child import run_child
from quantpress.toolchain import archived_libraries
from quantpress.toolchain.progress import plain_lines

LLAMA3 = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTPRESS_CACHE", str(tmp_path))


def test_gptqmodel_is_the_default_of_both() -> None:
    assert backends("gptq") == ["gptqmodel", "auto-gptq"]
    assert backends("awq") == ["gptqmodel", "autoawq"]
    assert backends("gguf") == []
    assert "backend" not in quantizer("awq").variant("awq-4bit-auto", LLAMA3).parameters


def test_variants_keep_their_names_and_name_their_backend() -> None:
    gptq = quantizer("gptq", "auto-gptq").variant("gptq-4bit-128g-actorder_True", LLAMA3)
    awq = quantizer("awq", "autoawq").variant("awq-4bit-auto", LLAMA3)

    assert (gptq.name, gptq.branch) == ("gptq-4bit-128g-actorder_True", "gptq-4bit-128g-actorder_True")
    assert (awq.name, awq.branch) == ("awq-4bit-128g", "main")
    assert awq.parameters == {
        "backend": "autoawq",
        "bits": 4,
        "group_size": 128,
        "zero_point": True,
        "version": "gemm",
    }
    assert isinstance(quantizer_of(gptq), AutoGPTQ)
    assert isinstance(quantizer_of(awq), AutoAWQ)


def test_only_auto_gptq_needs_cuda() -> None:
    assert quantizer("gptq", "auto-gptq").variant("gptq-4bit-auto", LLAMA3).needs_cuda
    assert not quantizer("gptq").variant("gptq-4bit-auto", LLAMA3).needs_cuda
    assert not quantizer("awq", "autoawq").variant("awq-4bit-auto", LLAMA3).needs_cuda


@pytest.mark.parametrize(("format_name", "backend"), [("gptq", "auto-gptq"), ("awq", "autoawq")])
@pytest.mark.usefixtures("empty_cache")
def test_a_missing_environment_is_refused_with_the_command_that_makes_it(format_name: str, backend: str) -> None:
    with pytest.raises(Refused, match="run `quantpress toolchain install archived-libraries`"):
        quantizer(format_name, backend).version()


def test_the_edition_of_what_mends_autoawq_is_part_of_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archived_libraries, "require", lambda: Path("python"))
    assert quantizer("awq", "autoawq").version() == "autoawq 0.2.9, quantpress mend 1"
    assert quantizer("gptq", "auto-gptq").version() == "auto-gptq 0.7.1"


def test_architectures_that_came_after_the_archived_libraries_are_refused() -> None:
    with pytest.raises(Refused, match="AutoGPTQ does not know the architecture 'qwen3'"):
        quantizer("gptq", "auto-gptq").variant("gptq-4bit-auto", LLAMA3 | {"model_type": "qwen3"})
    with pytest.raises(Refused, match="AutoAWQ does not know the architecture 'gpt_oss'"):
        quantizer("awq", "autoawq").variant("awq-4bit-auto", LLAMA3 | {"model_type": "gpt_oss"})


def test_widths_that_autoawq_cannot_search_are_refused() -> None:
    narrow = LLAMA3 | {"num_key_value_heads": 3, "head_dim": 32, "hidden_size": 1024}

    with pytest.raises(
        Refused, match=r"key and value width 96, .*not divisible by 64: weights are searched by AutoAWQ"
    ):
        quantizer("awq", "autoawq").variant("awq-4bit-32g", narrow)


def test_an_unknown_backend_is_bad_input() -> None:
    with pytest.raises(BadInput, match="unknown backend 'autoawk' of format 'awq': did you mean 'autoawq'"):
        quantizer("awq", "autoawk")
    with pytest.raises(BadInput, match="format 'gguf' has no backends to choose from"):
        quantizer("gguf", "llama.cpp")


#: A program without quantpress. It prints how far the checkpoint's next-token distribution is from the source's, as a
#: KL divergence in nats.
LOAD = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
made, source = (AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32) for path in sys.argv[1:3])
ids = AutoTokenizer.from_pretrained(sys.argv[1])(open(sys.argv[3]).read()[5000:6500], return_tensors="pt")
with torch.inference_mode():
    ours, theirs = (model(**ids).logits.log_softmax(-1) for model in (made, source))
print(type(made.model.layers[0].mlp.down_proj).__name__, float((theirs.exp() * (theirs - ours)).sum(-1).mean()))
"""


def job_for(backend: str, format_name: str, source: Path, english: Path, folder: Path) -> Job:
    config = json.loads((source / "config.json").read_text())
    return Job(
        step="quantize",
        variant=quantizer(format_name, backend).variant(f"{format_name}-4bit-auto", config),
        model_name="SmolLM2-135M-Instruct",
        source=source,
        prepared=folder / "prepared",
        out=folder / "out",
        # AutoAWQ's clipping search takes 40 s for these two layers with 512 tokens.
        calibration=CalibrationText(name="english", path=english, sha256=sha256_of(english), samples=1, length=64),
        threads=2,
        device="cpu",
    )


@pytest.mark.slow
def test_what_autoawq_makes_loads_in_plain_transformers(tiny_model: Path, english: Path, tmp_path: Path) -> None:
    archived_libraries.install(plain_lines(print))
    assert quantizer("awq", "autoawq").version() == "autoawq 0.2.9, quantpress mend 1"

    output = run_child(
        "quantizers.job", job_for("autoawq", "awq", tiny_model, english, tmp_path), Result, tmp_path
    ).output

    made = tmp_path / "out"
    assert output is not None
    assert output.tensor_types == {"int4": 7_077_888, "float16": 28_314_432}
    assert output.files == sorted(path.name for path in made.iterdir())
    assert output.details["calibration_tokens"] == 64
    assert sha256_of(made / "tokenizer.json") == sha256_of(tiny_model / "tokenizer.json")
    assert json.loads((made / "config.json").read_text())["quantization_config"] == {
        "bits": 4,
        "group_size": 64,
        "modules_to_not_convert": None,
        "quant_method": "awq",
        "version": "gemm",
        "zero_point": True,
    }
    command = [sys.executable, "-I", "-c", LOAD, str(made), str(tiny_model), str(english)]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    kind, divergence = said.splitlines()[-1].split()  # GPTQModel's greeting comes before
    assert "Awq" in kind
    assert 0.001 < float(divergence) < 0.3


@pytest.mark.slow
def test_autogptq_on_a_cpu_says_that_it_needs_cuda(tiny_model: Path, english: Path, tmp_path: Path) -> None:
    job = job_for("auto-gptq", "gptq", tiny_model, english, tmp_path)

    with pytest.raises(ChildFailed, match=r"^AutoGPTQ quantizes on CUDA only: take the backend gptqmodel, or a CUDA"):
        run_child("quantizers.job", job, Result, tmp_path)
