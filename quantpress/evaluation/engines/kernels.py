"""Which kernels compute a GPTQ or AWQ checkpoint that transformers loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: For each format, transformers' class of its settings and GPTQModel's name of the kernel in PyTorch.
PLAIN_KERNELS = {"gptq": ("GPTQConfig", "gptq_torch"), "awq": ("AwqConfig", "torch_awq")}


def plain_kernels(model: Path) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` that make GPTQModel compute with PyTorch alone; none for other formats.

    Left to itself it takes the fastest kernels of the GPU. On an H200 and an H100 (gptqmodel 7.6.0) it compiled Marlin
    for two minutes within an evaluation, asked the network for the sources of Machete, and failed where 128 does not
    divide a linear's outputs.
    """
    import transformers

    config = json.loads((model / "config.json").read_bytes())
    given = config.get("quantization_config") or {}
    if given.get("quant_method") not in PLAIN_KERNELS:
        return {}
    settings, backend = PLAIN_KERNELS[given["quant_method"]]
    return {"quantization_config": getattr(transformers, settings)(bits=given["bits"], backend=backend)}
