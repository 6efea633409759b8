"""Twenty sources that are healthy and twenty that are broken, each in its own way."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

Files = dict[str, bytes]

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "dtype": "float16",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_hidden_layers": 1,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "vocab_size": 49152,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_SHAPES = {
    "model.embed_tokens.weight": (49152, 64),
    "model.norm.weight": (64,),
    "model.layers.0.input_layernorm.weight": (64,),
    "model.layers.0.post_attention_layernorm.weight": (64,),
    "model.layers.0.self_attn.q_proj.weight": (64, 64),
    "model.layers.0.self_attn.k_proj.weight": (32, 64),
    "model.layers.0.self_attn.v_proj.weight": (32, 64),
    "model.layers.0.self_attn.o_proj.weight": (64, 64),
    "model.layers.0.mlp.gate_proj.weight": (128, 64),
    "model.layers.0.mlp.up_proj.weight": (128, 64),
    "model.layers.0.mlp.down_proj.weight": (64, 128),
}
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")


def healthy(tokenizer: Path, seed: int) -> Files:
    """Returns the files of a Llama of 3.2 million random weights with the tokenizer in the folder ``tokenizer``."""
    files = {name: (tokenizer / name).read_bytes() for name in _TOKENIZER_FILES}
    files["config.json"] = json.dumps(CONFIG).encode()
    files["model.safetensors"] = save(_weights(seed), {"format": "pt"})
    return files


def _weights(seed: int) -> dict[str, NDArray[np.float16]]:
    draw = np.random.default_rng(seed)
    return {
        name: np.ones(shape, np.float16) if len(shape) == 1 else draw.normal(0, 0.05, shape).astype(np.float16)
        for name, shape in _SHAPES.items()
    }


@dataclass(frozen=True)
class Broken:
    """A way to break a healthy source. ``said`` is in the one line about the source. ``planned`` says whether the plan
    finds it. Otherwise it is found after the source was fetched."""

    name: str
    said: str
    spoil: Callable[[Files], Files]
    planned: bool = True


def _config(**changes: Any) -> Callable[[Files], Files]:
    return lambda files: files | {"config.json": json.dumps(json.loads(files["config.json"]) | changes).encode()}


def _file(name: str, content: bytes) -> Callable[[Files], Files]:
    return lambda files: files | {name: content}


def _without(*names: str) -> Callable[[Files], Files]:
    return lambda files: {name: content for name, content in files.items() if name not in names}


def _tensors(change: Callable[[dict[str, NDArray[Any]]], dict[str, NDArray[Any]]]) -> Callable[[Files], Files]:
    return lambda files: files | {"model.safetensors": save(change(dict(_weights(0))), {"format": "pt"})}


def _tokenizer(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Files], Files]:
    return lambda files: files | {"tokenizer.json": json.dumps(change(json.loads(files["tokenizer.json"]))).encode()}


def _more_tokens(tokenizer: dict[str, Any]) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    more = [{"id": 49152 + i, "content": f"<more {i}>", "special": True, **flags} for i in range(3)]
    return tokenizer | {"added_tokens": [*tokenizer["added_tokens"], *more]}


def _doubling(tokenizer: dict[str, Any]) -> dict[str, Any]:
    rule = {"type": "Replace", "pattern": {"String": "e"}, "content": "ee"}
    return tokenizer | {"normalizer": {"type": "Sequence", "normalizers": [rule] * 40}}


def _lost_shard(files: Files) -> Files:
    """Splits the weights in two, and leaves the second part out."""
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    index = {"weight_map": {name: second if "mlp" in name else first for name in _SHAPES}}
    kept = {name: each for name, each in _weights(0).items() if "mlp" not in name}
    parts = {first: save(kept, {"format": "pt"}), "model.safetensors.index.json": json.dumps(index).encode()}
    return _without("model.safetensors")(files) | parts


def _header(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text


BROKEN = (
    Broken("Deep", "config.json is nested", _file("config.json", b'{"a":' * 700 + b"1" + b"}" * 700)),
    Broken("NoVocabulary", "vocab_size", _config(vocab_size=0)),
    Broken("TextConfig", "text_config", _config(text_config="llama")),
    Broken("HeadDim", "head_dim", _config(head_dim="64")),
    Broken("List", "config.json is not a JSON object", _file("config.json", b"[]")),
    Broken("NotJson", "config.json is not JSON", _file("config.json", b"\xff\xfe{")),
    Broken("NoConfig", "config.json", _without("config.json")),
    Broken("Pickle", "safetensors", lambda files: _without("model.safetensors")(files) | {"pytorch_model.bin": b"P"}),
    Broken("Code", "code", _config(auto_map={"AutoModelForCausalLM": "modeling.Evil"})),
    Broken("UnknownType", "model type", _config(model_type="nobody-knows", architectures=["NobodyForCausalLM"])),
    Broken("Classifier", "classif", _config(architectures=["LlamaForSequenceClassification"])),
    Broken("Quantized", "quantiz", _config(quantization_config={"quant_method": "gptq", "bits": 4})),
    Broken("Template", "chat_template.json", _file("chat_template.json", b"[")),
    Broken("LongTemplate", "template", _file("chat_template.jinja", b"x" * 2_000_000)),
    Broken("LostShard", "model-00002-of-00002.safetensors", _lost_shard),
    Broken("NoHead", "lm_head.weight", _config(tie_word_embeddings=False), planned=False),
    Broken(
        "MissingTensors",
        "self_attn",
        _tensors(lambda found: {name: each for name, each in found.items() if "self_attn" not in name}),
        planned=False,
    ),
    Broken("EmptyHeader", "tensor", _file("model.safetensors", _header(b"{}")), planned=False),
    Broken("MoreTokens", "49155", _tokenizer(_more_tokens), planned=False),
    Broken("Doubling", "memory", _tokenizer(_doubling), planned=False),
)
