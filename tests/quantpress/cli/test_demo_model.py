from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from quantpress.cli import demo_model as demo
from quantpress.cli.demo_model import MODEL_WHEEL
from quantpress.toolchain.llama_cpp import LlamaCpp


def tensors(folder: Path) -> dict[str, dict[str, object]]:
    """Returns the header of a folder's safetensors file."""
    with (folder / "model.safetensors").open("rb") as stream:
        size = struct.unpack("<Q", stream.read(8))[0]
        header: dict[str, dict[str, object]] = json.loads(stream.read(size))
    header.pop("__metadata__")
    return header


def test_the_demo_model_is_a_source_like_any_other(demo_model: Path) -> None:
    assert sorted(path.name for path in demo_model.iterdir()) == [
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    config = json.loads((demo_model / "config.json").read_bytes())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (config["hidden_size"], config["num_hidden_layers"], config["vocab_size"]) == (576, 30, 49152)
    assert (config["rope_theta"], config["rms_norm_eps"]) == (100000.0, 1e-05)
    assert "quantization_config" not in config
    weights = tensors(demo_model)
    assert len(weights) == 272
    assert {tensor["dtype"] for tensor in weights.values()} == {"F16"}
    assert "lm_head.weight" not in weights


def test_its_card_says_what_it_is(demo_model: Path) -> None:
    import yaml

    card = (demo_model / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])

    assert (front["license"], front["language"], front["pipeline_tag"]) == ("apache-2.0", ["en"], "text-generation")
    assert f"{MODEL_WHEEL.name}=={MODEL_WHEEL.version}" in card


def test_the_tiny_model_is_its_first_two_layers(demo_model: Path, tiny_model: Path) -> None:
    whole, cut = tensors(demo_model), tensors(tiny_model)

    assert len(cut) == 20
    assert {name: tensor["shape"] for name, tensor in cut.items()} == {
        name: tensor["shape"]
        for name, tensor in whole.items()
        if not name.startswith("model.layers.") or name.split(".")[2] in {"0", "1"}
    }
    assert json.loads((tiny_model / "config.json").read_bytes())["num_hidden_layers"] == 2


def test_the_chat_template_is_smollms(demo_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(demo_model)
    chat = [{"role": "user", "content": "Hi 123"}]

    assert tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi 123<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.tokenize("in 1945 <|im_end|>") == ["in", "Ġ", "1", "9", "4", "5", "Ġ", "<|im_end|>"]
    assert tokenizer("no BOS is added")["input_ids"][0] == tokenizer.convert_tokens_to_ids("no")
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)


@pytest.mark.slow
def test_it_answers_in_english_with_transformers(demo_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(demo_model)
    model = AutoModelForCausalLM.from_pretrained(demo_model, dtype=torch.float32)
    ids = tokenizer("The capital of France is", return_tensors="pt")

    said = model.generate(**ids, max_new_tokens=3, do_sample=False)

    assert tokenizer.decode(said[0]).startswith("The capital of France is Paris")


@pytest.mark.slow
def test_llama_cpp_knows_the_tokenizer_and_gives_the_same_ids(
    llama_cpp: LlamaCpp, tiny_model: Path, english: Path, tmp_path: Path
) -> None:
    import gguf
    from tokenizers import Tokenizer

    from quantizers.gguf.convert import convert
    from quantpress.evaluation.engines.llama_cpp import evaluate
    from quantpress.evaluation.job import EvaluationJob
    from quantpress.evaluation.logits import token_sha256
    from quantpress.files import sha256_of
    from quantpress.record.measurement import Protocol

    convert(llama_cpp, tiny_model, "tiny", "F16", tmp_path / "tiny.gguf")
    fields = gguf.GGUFReader(tmp_path / "tiny.gguf").fields
    text = tmp_path / "text"
    # English between text that pre-tokenizers split differently: digits, spaces, apostrophes, other scripts.
    odd = "\n\n 1234.5  it's\tI'LL 日本語 русский 👍🏽 ... \r\n  <html>&amp; a1b2_c3 "
    text.write_text(odd * 20 + english.read_text()[:20_000] + odd * 20, newline="")
    ids = Tokenizer.from_file(str(tiny_model / "tokenizer.json")).encode(text.read_bytes().decode()).ids
    protocol = Protocol(text="odd", text_sha256=sha256_of(text), n_ctx=128, windows=len(ids) // 128)

    measured = evaluate(
        EvaluationJob(
            engine="llama.cpp", model=tmp_path / "tiny.gguf", protocol=protocol, text=text, threads=2, device="cpu"
        )
    )

    assert fields["tokenizer.ggml.pre"].contents() == "smollm"
    assert fields["tokenizer.ggml.add_bos_token"].contents() is False
    assert fields["general.name"].contents() == "tiny"
    assert measured.token_sha256 == token_sha256(ids[: len(ids) // 128 * 128])


def test_both_are_made_once(demo_model: Path, tiny_model: Path) -> None:
    reported: list[str] = []

    def report(what: str, done: int, total: int) -> None:
        reported.append(what)

    assert demo.demo_model(report) == demo_model
    assert demo.tiny_model(report) == tiny_model
    assert reported == []
