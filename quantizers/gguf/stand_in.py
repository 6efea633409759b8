"""Makes a stand-in: a tiny GGUF model that has a source's tokenizer and chat template, and weights of zeros.

llama.cpp's tools tokenize and render only with a whole model. A stand-in takes a second to make, so both can be tried
before the source is converted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from quantpress.source.gguf import read_gguf

#: The sizes of the model, which llama.cpp accepts for every vocabulary.
_WIDTH, _INNER, _HEADS, _CONTEXT = 32, 32, 1, 1 << 16
_OF_TOKENIZER, _TEMPLATE = "tokenizer.", "tokenizer.chat_template"
#: GGUF stores this array in bytes. All other arrays of numbers have 32 bits.
_IN_BYTES = "tokenizer.ggml.precompiled_charsmap"


def write_stand_in(vocabulary: Path, file: Path, template: str | None = None) -> None:
    """Writes a stand-in to ``file``. ``vocabulary`` is a GGUF file with the tokenizer.

    If ``template`` is given, it takes the place of the chat template in ``vocabulary``.
    """
    from gguf import GGUFWriter

    metadata = read_gguf(vocabulary).metadata
    writer = GGUFWriter(file, "llama")
    writer.add_block_count(1)
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(_WIDTH)
    writer.add_feed_forward_length(_INNER)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_vocab_size(len(metadata.get("tokenizer.ggml.tokens", ())))
    for key, value in metadata.items():
        if not key.startswith(_OF_TOKENIZER) or (key == _TEMPLATE and template is not None):
            continue
        match value:
            case bool():
                writer.add_bool(key, value)
            case int():
                writer.add_uint32(key, value)
            case float():
                writer.add_float32(key, value)
            case bytes():
                writer.add_string(key, value)
            case list() if value:
                writer.add_array(key, bytes(value) if key == _IN_BYTES else value)
    if template is not None:
        writer.add_chat_template(template)
    rows = len(metadata.get("tokenizer.ggml.tokens", ()))
    writer.add_tensor("token_embd.weight", np.zeros((rows, _WIDTH), np.float16))
    writer.add_tensor("output_norm.weight", np.zeros(_WIDTH, np.float32))
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros(_WIDTH, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros((_INNER, _WIDTH), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
