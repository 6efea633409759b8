"""Chooses the kernels for a GPTQ or AWQ checkpoint that transformers loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantpress.foreign_json import read_object
from quantpress.source.config import CONFIG_FILE

#: Maps a format to the transformers class of its settings, and to GPTQModel's name for the PyTorch kernel.
PLAIN_KERNELS = {"gptq": ("GPTQConfig", "gptq_torch"), "awq": ("AwqConfig", "torch_awq")}


def plain_kernels(model: Path) -> dict[str, Any]:
    """Returns arguments for ``from_pretrained`` that make GPTQModel compute only with PyTorch.

    For formats other than GPTQ and AWQ, the dict is empty.

    By default, GPTQModel chooses the fastest kernels of the GPU. On an H200 and an H100, GPTQModel 7.6.0 compiled the
    kernel Marlin for two minutes within an evaluation, and requested the sources of the kernel Machete from the
    network. If the number of a linear layer's outputs was not a multiple of 128, GPTQModel failed.
    """
    import transformers

    config = read_object(model / CONFIG_FILE)
    given = config.get("quantization_config") or {}
    if given.get("quant_method") not in PLAIN_KERNELS:
        return {}
    settings, backend = PLAIN_KERNELS[given["quant_method"]]
    return {"quantization_config": getattr(transformers, settings)(bits=given["bits"], backend=backend)}
