"""``gptq`` by AutoGPTQ and ``awq`` by AutoAWQ: what the plan is told. ``test_cases.py`` makes a checkpoint by AutoAWQ."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantizers import backends, quantizer, quantizer_of
from quantizers.archived_formats import AutoAWQ, AutoGPTQ
from quantpress.errors import BadInput, Refused

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


def test_architectures_that_came_after_the_archived_libraries_are_refused() -> None:
    with pytest.raises(Refused, match="AutoGPTQ does not know the architecture 'qwen3'"):
        quantizer("gptq", "auto-gptq").variant("gptq-4bit-auto", LLAMA3 | {"model_type": "qwen3"})
    with pytest.raises(Refused, match="AutoAWQ does not know the architecture 'gpt_oss'"):
        quantizer("awq", "autoawq").variant("awq-4bit-auto", LLAMA3 | {"model_type": "gpt_oss"})


def test_widths_that_autoawq_cannot_search_are_refused() -> None:
    narrow = LLAMA3 | {"num_key_value_heads": 3, "head_dim": 32, "hidden_size": 1024}

    with pytest.raises(Refused, match="key and value width 96, .*not divisible by 64: weights are searched by AutoAWQ"):
        quantizer("awq", "autoawq").variant("awq-4bit-32g", narrow)


def test_an_unknown_backend_is_bad_input() -> None:
    with pytest.raises(BadInput, match="unknown backend 'autoawk' of format 'awq': did you mean 'autoawq'"):
        quantizer("awq", "autoawk")
    with pytest.raises(BadInput, match="format 'gguf' has no backends to choose from"):
        quantizer("gguf", "llama.cpp")
