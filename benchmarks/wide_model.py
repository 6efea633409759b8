"""Makes models for tests of quantization: SmolLM2 widened to 768, and the first two layers of the widened model.

768 is a multiple of 256, which K- and IQ-types need. The widened model computes the same function as SmolLM2. The
residual stream is padded with zeros to 768 and rotated by a random orthogonal matrix, so that all its values are in
use. The rotation does not change the mean square that RMSNorm computes, but the padding changes it by a constant
factor. The gains of RMSNorm cannot be rotated. So the gains and the factor are multiplied into the matrices that
follow.

Each group of three query heads gets a fourth head, a copy of the third. In the output matrix, the third head's weights
are halved, and both heads get this half. The tied embeddings become two separate matrices.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantpress.cli.demo_model import MODEL_NAME, demo_model, tiny_model
from quantpress.files import write_text
from quantpress.toolchain.cache import make_once
from quantpress.toolchain.progress import Progress, silent

Weights = dict[str, NDArray[Any]]

WIDTH = 768
_HEAD = 64
_SEED = 768
#: Increase this number when the content of the made folder changes. The folder's name in the cache depends on it.
_EDITION = 1
_READS_RESIDUAL = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
_WRITES_RESIDUAL = ("self_attn.o_proj", "mlp.down_proj")


def wide_model(progress: Progress = silent) -> Path:
    """Returns the folder of SmolLM2-135M-Instruct at width 768, in the layout of the Hub. It has 226 million weights.

    The folder is made once per user.
    """
    return _folder(demo_model(progress), f"wide-{MODEL_NAME}", progress)


def tiny_wide_model(progress: Progress = silent) -> Path:
    """Returns the folder of a model that has only the first two layers of the wide model."""
    return _folder(tiny_model(progress), f"tiny-wide-{MODEL_NAME}", progress)


def _folder(source: Path, name: str, progress: Progress) -> Path:
    key = hashlib.sha256(f"{source.name} {_SEED} {_EDITION}".encode()).hexdigest()[:12]

    def make(part: Path) -> None:
        from safetensors.numpy import load_file, save_file

        for file in source.iterdir():
            if file.suffix in {".json", ".md"} and file.name != "config.json":
                (part / file.name).write_bytes(file.read_bytes())
        config = json.loads((source / "config.json").read_bytes())
        write_text(part / "config.json", json.dumps(widened_config(config), indent=2) + "\n")
        weights = widened(load_file(source / "model.safetensors"), config)
        half = {name: np.ascontiguousarray(values, dtype=np.float16) for name, values in weights.items()}
        save_file(half, part / "model.safetensors", metadata={"format": "pt"})

    return make_once(source.with_name(f"{name}-{key}"), make, progress)


def widened_config(config: dict[str, Any]) -> dict[str, Any]:
    groups = config["num_key_value_heads"]
    return config | {
        "hidden_size": WIDTH,
        "num_attention_heads": config["num_attention_heads"] + groups,
        # The added zeros make the mean square smaller. RMSNorm adds epsilon to the mean square, so epsilon must be
        # smaller too.
        "rms_norm_eps": config["rms_norm_eps"] * config["hidden_size"] / WIDTH,
        "tie_word_embeddings": False,
    }


def widened(weights: Weights, config: dict[str, Any]) -> Weights:
    """Returns a dict from a weight's name in safetensors to its values at width 768, in float32."""
    old, groups = config["hidden_size"], config["num_key_value_heads"]
    turn = np.linalg.qr(np.random.default_rng(_SEED).standard_normal((WIDTH, WIDTH)))[0][:old]
    shrink = (old / WIDTH) ** 0.5
    full = {name: values.astype(np.float64) for name, values in weights.items()}
    embeddings = full["model.embed_tokens.weight"]
    made = {
        "model.embed_tokens.weight": embeddings @ turn,
        "lm_head.weight": (embeddings * full["model.norm.weight"] * shrink) @ turn,
        "model.norm.weight": np.ones(WIDTH),
    }
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        for part in _READS_RESIDUAL:
            norm = "input_layernorm" if part.startswith("self_attn") else "post_attention_layernorm"
            gains = full[f"{prefix}.{norm}.weight"] * shrink
            made[f"{prefix}.{part}.weight"] = (full[f"{prefix}.{part}.weight"] * gains) @ turn
            made[f"{prefix}.{norm}.weight"] = np.ones(WIDTH)
        for part in _WRITES_RESIDUAL:
            made[f"{prefix}.{part}.weight"] = turn.T @ full[f"{prefix}.{part}.weight"]
        query, output = f"{prefix}.self_attn.q_proj.weight", f"{prefix}.self_attn.o_proj.weight"
        heads = made[query].reshape(groups, -1, _HEAD, WIDTH)
        made[query] = np.concatenate([heads, heads[:, -1:]], axis=1).reshape(-1, WIDTH)
        shares = made[output].reshape(WIDTH, groups, -1, _HEAD)
        last = shares[:, :, -1:] / 2
        made[output] = np.concatenate([shares[:, :, :-1], last, last], axis=2).reshape(WIDTH, -1)
    return {name: values.astype(np.float32) for name, values in made.items()}
