"""A mixture of experts in several safetensors files becomes one GGUF, and experts that no token reached are named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from safetensors.numpy import save_file

from quantizers.gguf.convert import convert
from quantizers.gguf.imatrix import make_imatrix
from quantizers.gguf.preflight import check_source
from quantizers.protocol import CalibrationText
from quantpress.files import sha256_of
from quantpress.toolchain.llama_cpp import LlamaCpp

pytestmark = pytest.mark.slow

WIDTH, INNER, EXPERTS, VOCABULARY = 64, 96, 4, 49152


def make_mixtral(folder: Path, tokenizer_of: Path) -> None:
    """Makes a model of one layer with random weights. The router never chooses the last expert, whatever the token."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer_of / name, folder / name)
    config = {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "num_local_experts": EXPERTS,
        "num_experts_per_tok": 1,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    (folder / "config.json").write_text(json.dumps(config))
    random = np.random.default_rng(7)

    def matrix(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]]:
        return (random.standard_normal(shape) * 0.05).astype(np.float16)

    gate = matrix(EXPERTS, WIDTH)
    gate[1], gate[-1] = -gate[0], 0  # one of the first two has a logit above 0, the last one's
    layer, experts = "model.layers.0", "model.layers.0.block_sparse_moe.experts"
    first = {
        "model.embed_tokens.weight": matrix(VOCABULARY, WIDTH),
        f"{layer}.input_layernorm.weight": np.ones(WIDTH, np.float16),
        f"{layer}.post_attention_layernorm.weight": np.ones(WIDTH, np.float16),
        **{f"{layer}.self_attn.{name}_proj.weight": matrix(WIDTH, WIDTH) for name in "qkvo"},
        f"{layer}.block_sparse_moe.gate.weight": gate,
    }
    second = {
        **{f"{experts}.{number}.w{part}.weight": matrix(INNER, WIDTH) for number in range(EXPERTS) for part in (1, 3)},
        **{f"{experts}.{number}.w2.weight": matrix(WIDTH, INNER) for number in range(EXPERTS)},
        "model.norm.weight": np.ones(WIDTH, np.float16),
        "lm_head.weight": matrix(VOCABULARY, WIDTH),
    }
    parts = {"model-00001-of-00002.safetensors": first, "model-00002-of-00002.safetensors": second}
    for name, tensors in parts.items():
        save_file(tensors, folder / name, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {tensor: name for name, tensors in parts.items() for tensor in tensors}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_experts_that_no_token_reached_are_named(
    llama_cpp: LlamaCpp, tiny_model: Path, english: Path, tmp_path: Path
) -> None:
    make_mixtral(tmp_path / "source", tiny_model)
    check_source(llama_cpp, tmp_path / "source", "Moe", "F16", "cpu")
    convert(llama_cpp, tmp_path / "source", "Moe", "F16", tmp_path / "Moe-F16.gguf")
    shapes = {tensor.name: list(tensor.shape) for tensor in GGUFReader(tmp_path / "Moe-F16.gguf").tensors}
    assert shapes["blk.0.ffn_up_exps.weight"] == [WIDTH, INNER, EXPERTS]

    text = CalibrationText(name="english", path=english, sha256=sha256_of(english), samples=4, length=128)
    report = make_imatrix(llama_cpp, tmp_path / "Moe-F16.gguf", text, tmp_path / "im.gguf", ["--threads", "2"])

    assert report.windows == 4
    assert report.unused == [
        "blk.0.ffn_down_exps.weight",
        "blk.0.ffn_gate_exps.weight",
        "blk.0.ffn_up_exps.weight",
    ]
