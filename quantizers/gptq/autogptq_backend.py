"""Quantizes with AutoGPTQ: ``python -I autogptq_backend.py ORDER.json``, in the archived libraries' environment.

quantizers/archived.py writes ORDER.json. This program is written for auto-gptq 0.7.1 and transformers 4.51.3. It
imports nothing from quantpress.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from auto_gptq import AutoGPTQForCausalLM, BaseQuantizeConfig
from safetensors import safe_open
from safetensors.torch import save_file


def main(order_file: Path) -> None:
    order = json.loads(order_file.read_text(encoding="utf-8"))
    torch.set_num_threads(order["threads"])
    config = BaseQuantizeConfig(**order["parameters"])
    made = AutoGPTQForCausalLM.from_pretrained(
        order["source"],
        config,
        torch_dtype=getattr(torch, order["dtype"]),
        trust_remote_code=False,
        use_safetensors=True,
    )
    made.quantize([_sample(ids) for ids in order["windows"]])
    _save(made.model, config, Path(order["source"]), Path(order["out"]))


def _sample(ids: list[int]) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}


def _save(model: Any, config: BaseQuantizeConfig, source: Path, folder: Path) -> None:
    """Saves the model instead of AutoGPTQ's own function.

    AutoGPTQ's function has three faults. It stores tied weights twice. It stores a bias of zeros for every linear
    without a bias. It gives the file a name that transformers does not look for.
    """
    model.to("cpu")
    tied = set(model._tied_weights_keys or ()) if model.config.tie_word_embeddings else set()
    added = {name for name in model.state_dict() if name.endswith(".bias")} - _names(source)
    tensors = {
        name: tensor.clone().contiguous() for name, tensor in model.state_dict().items() if name not in tied | added
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    described = config.to_dict()
    for local in ("model_name_or_path", "model_file_base_name", "is_marlin_format"):
        described.pop(local)
    model.config.quantization_config = described
    model.config.save_pretrained(folder)
    # text-generation-webui and AutoGPTQ itself look for this file.
    (folder / "quantize_config.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def _names(folder: Path) -> set[str]:
    names: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            names |= set(tensors.keys())
    return names


if __name__ == "__main__":
    main(Path(sys.argv[1]))
