"""What a machine without a GPU can test of EXL3 and EXL2: names, the plan's reasons, the count of what files hold, and
cards. tests/gpu makes and measures them."""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from quantizers import quantizer
from quantizers.exl.exl2_backend import packed_weights, token_accuracy
from quantizers.exl.exl3_backend import trellis_weights
from quantizers.exl.files import output
from quantizers.protocol import CalibrationText, Job
from quantpress.card.context import CardContext
from quantpress.card.render import render_card
from quantpress.errors import BadInput, Refused
from quantpress.evaluation.engines.detect import engine_for
from quantpress.record.measurement import Protocol
from quantpress.toolchain import exllama
from quantpress.toolchain.exllama import EXLLAMAV2, EXLLAMAV3, activate, find, install
from tests.support import samples

#: Format, variant, bits per weight, bits of the head.
VARIANTS = [
    ("exl3", "2.0bpw", 2.0, 6),
    ("exl3", "4.0bpw", 4.0, 6),
    ("exl3", "4.25bpw", 4.25, 6),
    ("exl3", "8.0bpw_H8", 8.0, 8),
    ("exl2", "4.0bpw", 4.0, 6),
    ("exl2", "2.4bpw_H3", 2.4, 3),
]
CONFIG = {"model_type": "llama", "hidden_size": 768, "tie_word_embeddings": True, "dtype": "bfloat16"}


@pytest.mark.parametrize(("format_name", "name", "bits", "head_bits"), VARIANTS)
def test_a_variant_is_a_branch_and_needs_a_gpu(format_name: str, name: str, bits: float, head_bits: int) -> None:
    variant = quantizer(format_name).variant(name, CONFIG)
    assert (variant.name, variant.branch, variant.needs_cuda) == (name, name, True)
    assert variant.parameters == {"bits": bits, "head_bits": head_bits}
    assert variant.nominal_bits == bits


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("4bpw", "did you mean '4.0bpw'"),
        ("4_25", "did you mean '4.25bpw'"),
        ("Q4_K_M", "did you mean '4.0bpw'"),
        ("4.00bpw", "is called '4.0bpw'"),
        ("4.0bpw_H6", "is called '4.0bpw'"),
        ("8.5bpw", "go from 2.0 to 8.0"),
        ("1.5bpw", "go from 2.0 to 8.0"),
        ("8.0bpw_H9", "the head takes"),
    ],
)
@pytest.mark.parametrize("format_name", ["exl3", "exl2"])
def test_other_names_are_refused_with_the_right_one(format_name: str, name: str, says: str) -> None:
    with pytest.raises(BadInput, match=re.escape(says)):
        quantizer(format_name).check_name(name)


def test_exl3_refuses_a_width_that_its_tiles_do_not_divide() -> None:
    with pytest.raises(Refused, match="needs a hidden_size that 128 divides, and it is 576: use exl2"):
        quantizer("exl3").variant("4.0bpw", CONFIG | {"hidden_size": 576})
    narrow = CONFIG | {"num_attention_heads": 12, "num_key_value_heads": 3, "head_dim": 64}
    with pytest.raises(Refused, match="needs a width of keys and values that 128 divides, and it is 192"):
        quantizer("exl3").variant("4.0bpw", narrow)
    for config in (CONFIG | {"hidden_size": 576}, narrow):
        quantizer("exl2").variant("4.0bpw", config)


def test_exl2_does_not_measure_again_what_is_published(tmp_path: Path) -> None:
    made = job(tmp_path, "exl2")
    made.prepared.mkdir()
    [name] = quantizer("exl2").costly_files("M")
    (made.prepared / name).write_text("published before")
    quantizer("exl2").prepare(made)
    assert (made.prepared / "measurement.json").read_text() == "published before"
    assert quantizer("exl2").shared_files(made) == [made.prepared / "measurement.json"]


class Layer:
    """A layer that returns a given output. A real layer of ExLlamaV2 needs a GPU, but measuring its output does not."""

    def __init__(self, output: Any, *, float32_stream: bool = False) -> None:
        self.output = output
        language_model = SimpleNamespace(residual_stream_fp32=float32_stream)
        self.model = SimpleNamespace(config=SimpleNamespace(arch=SimpleNamespace(lm=language_model)))

    def forward(self, given: Any, cache: Any, attention: Any) -> Any:
        return self.output


def test_exl2_measures_a_layer_by_all_tokens_alike() -> None:
    wanted = torch.tensor([[[4096.0, 0], [3, 4]]], dtype=torch.float16)
    # The first token is exact. The second is off by half its own norm, but that is 0.06 % of the window's norm.
    made = torch.tensor([[[4096.0, 0], [3, 1.5]]], dtype=torch.float16)
    assert token_accuracy("cpu")(Layer(made), [wanted], [wanted], None, None) == 0.75
    assert token_accuracy("cpu")(Layer(wanted), [wanted, wanted], [wanted, wanted], None, None) == 1
    assert token_accuracy("cpu")(Layer(-9 * wanted), [wanted], [wanted], None, None) == 1e-6


def test_exl2_measures_within_the_range_that_the_layer_hands_on() -> None:
    wanted = torch.tensor([[[65504.0]]], dtype=torch.float16)
    made = torch.tensor([[[131008.0]]])
    assert token_accuracy("cpu")(Layer(made), [wanted], [wanted], None, None) == 1
    assert token_accuracy("cpu")(Layer(made, float32_stream=True), [wanted], [wanted], None, None) == 1e-6


def test_exl2_measures_no_error_where_nothing_comes_out() -> None:
    nothing = torch.zeros(1, 2, 4, dtype=torch.float16)
    assert token_accuracy("cpu")(Layer(nothing), [nothing], [nothing], None, None) == 1


def test_an_unquantized_head_is_for_exl3_alone() -> None:
    quantizer("exl3").check_name("8.0bpw_H16")
    with pytest.raises(BadInput, match="the head takes 2, 3, 4, 5, 6, 8 bits"):
        quantizer("exl2").check_name("8.0bpw_H16")


@pytest.mark.parametrize("package", [EXLLAMAV3, EXLLAMAV2], ids=lambda package: package.name)
def test_without_the_toolchain_the_command_that_makes_it_is_named(
    package: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTPRESS_CACHE", str(tmp_path))
    assert find(package) is None
    with pytest.raises(Refused, match=f"run `quantpress toolchain install {package.name}`"):
        activate(package)
    with pytest.raises(Refused, match=f"quantpress toolchain install {package.name}"):
        quantizer({"exllamav3": "exl3", "exllamav2": "exl2"}[package.name]).version()


def test_exllamav2_is_imported_without_the_attention_that_sees_later_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Building the package needs a GPU. Testing which environment variables are set at its import does not.
    monkeypatch.setattr(exllama, "require", lambda _: tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("EXLLAMA_NO_SDPA", "")
    activate(EXLLAMAV3)
    assert os.environ["EXLLAMA_NO_SDPA"] == ""
    activate(EXLLAMAV2)
    assert os.environ["EXLLAMA_NO_SDPA"] == "1"
    assert sys.path[0] == str(tmp_path / "site")
    # The mend is part of the version, so checkpoints made with it have another recipe.
    assert EXLLAMAV2.version == "exllamav2 0.3.2, quantpress mend 2"


def test_it_is_not_built_where_no_gpu_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if any(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("a GPU is here")
    monkeypatch.setenv("QUANTPRESS_CACHE", str(tmp_path))
    with pytest.raises(Refused, match="nvcc"):
        install(EXLLAMAV3)


def job(folder: Path, format_name: str) -> Job:
    source, out = folder / "source", folder / "out"
    for each in (source, out):
        each.mkdir()
        (each / "config.json").write_text(json.dumps(CONFIG))
        (each / "tokenizer.json").write_text(f'"{each.name}"')
        (each / "README.md").write_text("of the source")
    text = folder / "text.txt"
    text.write_text("words")
    return Job(
        step="quantize",
        variant=quantizer(format_name).variant("4.0bpw", CONFIG),
        model_name="M",
        source=source,
        prepared=folder / "prepared",
        out=out,
        calibration=CalibrationText(name="words", path=text, sha256="0" * 64, samples=1, length=1),
        threads=1,
        device="cuda",
    )


def test_what_an_exl3_checkpoint_holds(tmp_path: Path) -> None:
    made = job(tmp_path, "exl3")
    linear = {"m.q.weight": np.zeros((256, 128), np.float16), "m.embed.weight": np.zeros((64, 128), np.float16)}
    save_file(linear, made.source / "model.safetensors")
    save_file(
        {
            "m.q.trellis": np.zeros((8, 16, 56), np.int16),  # 128 x 256 weights of 3.5 bits
            "m.q.suh": np.zeros(128, np.float16),
            "m.q.svh": np.zeros(256, np.float16),
            "m.q.mul1": np.zeros(1, np.int32),
            "m.embed.weight": np.zeros((64, 128), np.float16),
        },
        made.out / "model.safetensors",
    )
    written = CONFIG | {"tie_word_embeddings": False, "quantization_config": {"quant_method": "exl3"}}
    (made.out / "config.json").write_text(json.dumps(written))

    found = output(made, trellis_weights, (".suh", ".svh", ".mul1"), {"calibration_tokens": 1})

    assert found.tensor_types == {"trellis3.5": 32_768, "float16": 8_192}
    assert found.bits_per_weight == (32_768 * 3.5 + 384 * 16 + 32 + 8_192 * 16) / 40_960
    assert found.files == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (made.out / "tokenizer.json").read_text() == '"source"'
    config = json.loads((made.out / "config.json").read_text())
    assert (config["dtype"], config["tie_word_embeddings"]) == ("float16", False)
    assert config["quantization_config"] == {"quant_method": "exl3"}
    assert engine_for(made.out) == "exllamav3"
    assert engine_for(made.source) == "transformers"


def test_what_an_exl2_checkpoint_holds(tmp_path: Path) -> None:
    made = job(tmp_path, "exl2")
    save_file({"m.q.weight": np.zeros((32, 128), np.float16)}, made.source / "model.safetensors")
    save_file(
        {
            # 32 columns: 64 rows of 5 bits take 10 rows of words, and 64 rows of 4 bits take 8.
            "m.q.q_weight": np.zeros((18, 32), np.int32),
            "m.q.q_groups": np.array([5, 0, 4, 10], np.int16),
            "m.q.q_scale": np.zeros((2, 4), np.int32),
            "m.norm.weight": np.zeros(128, np.float16),
        },
        made.out / "output.safetensors",
    )

    found = output(made, packed_weights, (".q_scale", ".q_groups"), {})

    assert found.tensor_types == {"int5": 2_048, "int4": 2_048, "float16": 128}
    assert found.details == {"weights": 4_096}


@pytest.mark.parametrize(
    ("format_name", "package"), [("exl3", "exllamav3"), ("exl2", "exllamav2")], ids=["exl3", "exl2"]
)
def test_the_card_has_branches_and_the_programs_that_load_them(format_name: str, package: str) -> None:
    protocol = Protocol(text="wikitext-2-raw-test", text_sha256="a" * 64, windows=40)
    entries = [
        samples.entry(
            format_name,
            name,
            bits=bits,
            divergence=divergence,
            branch=name,
            files=["model.safetensors"],
            parameters={"bits": bits, "head_bits": 6},
            protocol=protocol,
        )
        for name, bits, divergence in [("3.0bpw", 3.0, 0.2), ("4.0bpw", 4.0, 0.05)]
    ]
    manifest = samples.gptq().model_copy(update={"format": format_name, "entries": entries})
    context = CardContext(repo_id=f"press/M-{format_name}", branch="main", quantized_by="press")

    text = render_card(manifest, context)

    assert f"library_name: {package}" in text
    assert "| Branch | Bits per weight | Bits of the head |" in text
    assert f"hf download press/M-{format_name} --revision 4.0bpw --local-dir M-{format_name}-4.0bpw" in text
    snippets = re.findall(r"```python\n(.*?)```", text, re.S)
    assert [package in snippet and bool(ast.parse(snippet)) for snippet in snippets] == [True]
    assert f'"M-{format_name}-4.0bpw"' in snippets[0]
    assert "vllm" not in text and "transformers" not in text.split("## Download and run")[1].split("## What")[0]
    # ExLlamaV2 needs these settings where flash-attn is missing. ExLlamaV3 does not know them.
    said = [hint in text for hint in ("config.no_sdpa = True", "paged=False)", "`EXLLAMA_NO_SDPA=1`")]
    assert said == [format_name == "exl2"] * 3
