"""Small unquantized GGUF files with matrices of a real model, and an imatrix for them, written by the gguf package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.wide_model import widened

#: The rows kept of each matrix. With 768 columns, they are more than the engine takes at once, but still quick.
_KEPT_ROWS = 192
#: Columns of ``ffn_down`` by model width. 256 divides those of the wide model, only 32 those of the narrow one.
_INNER = {768: 512, 576: 480}
_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_EXPERTS = 4

Matrices = dict[str, NDArray[np.float32]]


@cache
def narrow(source: Path) -> Matrices:
    """Matrices of the 576-wide model in ``source``, with tied embeddings. Most types fall back to other types."""
    from safetensors.numpy import load_file

    return _cut(load_file(source / "model.safetensors"))


@cache
def wide(source: Path) -> Matrices:
    """Matrices of the same model, widened to 768, with untied embeddings. No type falls back."""
    from safetensors.numpy import load_file

    config = json.loads((source / "config.json").read_bytes())
    weights = load_file(source / "model.safetensors")
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:_KEPT_ROWS]
    return _cut(widened(weights, config))


def with_experts(matrices: Matrices) -> Matrices:
    """Replaces the feed-forward matrices with those of four experts, 256 wide inside, and adds a router."""
    made = {}
    for name, values in matrices.items():
        if ".ffn_down" in name:
            cut = np.stack([np.roll(values, 64 * expert, axis=1)[:, :256] for expert in range(_EXPERTS)])
        elif ".ffn_gate" in name or ".ffn_up" in name:
            cut = np.stack([np.roll(values, 48 * expert, axis=0) for expert in range(_EXPERTS)])
        else:
            made[name] = values
            continue
        made[name.replace(".weight", "_exps.weight")] = np.ascontiguousarray(cut)
    for layer in range(2):
        made[f"blk.{layer}.ffn_gate_inp.weight"] = matrices[f"blk.{layer}.attn_q.weight"][:_EXPERTS]
    return made


def _cut(weights: Mapping[str, NDArray[Any]]) -> Matrices:
    made = {}
    width = len(weights["model.norm.weight"])
    for name, values in weights.items():
        if name == "model.embed_tokens.weight":
            made["token_embd.weight"] = values[:_KEPT_ROWS]
        elif name == "lm_head.weight":
            made["output.weight"] = values[:_KEPT_ROWS]
        elif name == "model.norm.weight":
            made["output_norm.weight"] = values
        else:
            _, _, layer, part = name.removesuffix(".weight").split(".", 3)
            columns = _INNER[width] if part == "mlp.down_proj" else width
            kept = values if values.ndim == 1 else values[:_KEPT_ROWS, :columns]
            made[f"blk.{layer}.{_NAMES[part]}.weight"] = kept
    return {name: np.ascontiguousarray(values, dtype=np.float32) for name, values in made.items()}


def write_model(file: Path, matrices: Matrices, storage: Mapping[str, str]) -> None:
    """``storage`` is a dict from the end of a tensor's name to its type. Other matrices are ``F16``, vectors ``F32``.

    The metadata holds every kind of value that GGUF has.
    """
    import gguf

    width = matrices["token_embd.weight"].shape[1]
    experts = "blk.0.ffn_up_exps.weight" in matrices
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name("Bücher für 書店")
    writer.add_context_length(2048)
    writer.add_embedding_length(width)
    writer.add_block_count(2)
    writer.add_feed_forward_length(256 if experts else _INNER[width])
    writer.add_head_count(width // 64)
    writer.add_head_count_kv(3)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(_KEPT_ROWS)
    if experts:
        writer.add_expert_count(_EXPERTS)
        writer.add_expert_used_count(2)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(1)
    writer.add_array("test.words", ["", "<0x00>", "Ġtést", "\n"])
    writer.add_array("test.numbers", [1, -2, 3])
    writer.add_array("test.switches", [True, False])
    writer.add_bool("test.switch", True)
    writer.add_float64("test.pi", 3.141592653589793)
    writer.add_uint64("test.large", 1 << 40)
    writer.add_int8("test.small", -5)
    writer.add_uint16("test.split_like", 9)
    for name, values in matrices.items():
        kind = next((kind for end, kind in storage.items() if name.endswith(end)), "F16")
        chosen = gguf.GGMLQuantizationType["F32" if values.ndim == 1 else kind]
        writer.add_tensor(name, gguf.quants.quantize(values, chosen), raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_imatrix(file: Path, matrices: Matrices) -> None:
    """Writes random sums for all matrices except embeddings and output. No token reached the last expert."""
    import gguf

    random = np.random.default_rng(3)
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["texts/" + "ü" * 80 + ".txt", "second.txt"])
    writer.add_uint32("imatrix.chunk_count", 7)
    writer.add_uint32("imatrix.chunk_size", 512)
    for name, values in matrices.items():
        if values.ndim == 1 or name in ("token_embd.weight", "output.weight"):
            continue
        count = 1 if values.ndim == 2 else len(values)
        sums = random.lognormal(0, 2, (count, values.shape[-1])).astype(np.float32)
        counts = np.full((count, 1), 3584, np.float32)
        if count > 1:
            sums[-1], counts[-1] = 0, 0
        writer.add_tensor(f"{name}.in_sum2", sums)
        writer.add_tensor(f"{name}.counts", counts)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
