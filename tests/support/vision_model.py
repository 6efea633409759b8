"""A vision-language model with SmolVLM's architecture and tokenizer, random weights and very small widths."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

WIDTH, VISION_WIDTH, LAYERS, VISION_LAYERS = 64, 48, 2, 3
IMAGE, PATCH, SCALE = 64, 16, 2


def write_vision_model(folder: Path, tokenizer_of: Path, dtype: str = "bfloat16") -> Path:
    """Fills ``folder`` as SmolVLM's repository is filled: configuration, weights in ``dtype``, tokenizer, processor."""
    import torch
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration

    tokenizer = json.loads((tokenizer_of / "config.json").read_bytes())
    config = Idefics3Config(
        text_config={
            "architectures": ["VLlama3ForCausalLM"],
            "model_type": "llama",
            "vocab_size": tokenizer["vocab_size"],
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5,
            **{key: tokenizer[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")},
        },
        vision_config={
            "hidden_size": VISION_WIDTH,
            "intermediate_size": 2 * VISION_WIDTH,
            "num_hidden_layers": VISION_LAYERS,
            "num_attention_heads": 4,
            "image_size": IMAGE,
            "patch_size": PATCH,
        },
        scale_factor=SCALE,
        image_token_id=tokenizer["vocab_size"] - 1,
        pad_token_id=tokenizer["pad_token_id"],
        tie_word_embeddings=False,
    )
    torch.manual_seed(11)
    model = Idefics3ForConditionalGeneration(config)
    with torch.no_grad():
        # The logits lie as far apart as a trained model's, so that rounding shows.
        model.lm_head.weight.mul_(40)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer_of / name, folder / name)
    processor = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"longest_edge": 2 * IMAGE}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder
