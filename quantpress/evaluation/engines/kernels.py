"""Which kernels compute a GPTQ or AWQ checkpoint that transformers loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def plain_kernels(model: Path) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` that make GPTQModel compute with PyTorch alone; none for other formats.

    Left to itself it takes the fastest kernels of the GPU. On an H200 (gptqmodel 7.6.0) it compiled Marlin for two
    minutes within an evaluation, asked the network for the sources of Machete, and failed where 128 does not divide a
    linear's outputs.
    """
    from transformers import AwqConfig, GPTQConfig

    config = json.loads((model / "config.json").read_bytes())
    given = config.get("quantization_config") or {}
    if given.get("quant_method") == "gptq":
        return {"quantization_config": GPTQConfig(bits=given["bits"], backend="gptq_torch")}
    if given.get("quant_method") == "awq":
        return {"quantization_config": AwqConfig(bits=given["bits"], backend="torch_awq")}
    return {}
