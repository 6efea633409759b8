"""Chooses the kernels for a GPTQ or AWQ checkpoint that transformers loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: For each format: the transformers class of its settings, and GPTQModel's name for the kernel in PyTorch.
PLAIN_KERNELS = {"gptq": ("GPTQConfig", "gptq_torch"), "awq": ("AwqConfig", "torch_awq")}


def plain_kernels(model: Path) -> dict[str, Any]:
    """Returns arguments of ``from_pretrained`` that make GPTQModel compute only with PyTorch; none for other formats.

    By default GPTQModel chooses the fastest kernels of the GPU. On an H200 and an H100 (gptqmodel 7.6.0) it compiled
    Marlin for two minutes within an evaluation, requested the sources of Machete from the network, and failed when the
    number of a linear's outputs was not a multiple of 128.
    """
    import transformers

    config = json.loads((model / "config.json").read_bytes())
    given = config.get("quantization_config") or {}
    if given.get("quant_method") not in PLAIN_KERNELS:
        return {}
    settings, backend = PLAIN_KERNELS[given["quant_method"]]
    return {"quantization_config": getattr(transformers, settings)(bits=given["bits"], backend=backend)}
