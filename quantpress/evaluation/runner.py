"""The name of the machine that measured: speed and memory mean nothing without it."""

from __future__ import annotations

from typing import Literal

from quantpress.machine.gpu import ask_nvidia_smi
from quantpress.toolchain.machine import processor


def runner_name(device: Literal["cpu", "cuda"], threads: int) -> str:
    """Returns the GPU's name, or the processor's name and the number of threads: ``AMD EPYC 7763, 2 threads``."""
    if device == "cuda":
        return _gpu_name() or "a GPU"
    model = " ".join(processor().model.split()) or "a processor"
    return f"{model}, {threads} {'thread' if threads == 1 else 'threads'}"


def _gpu_name() -> str:
    """Returns the driver's name of the first GPU that this process may use; empty if the driver's tool is missing."""
    return next(iter(ask_nvidia_smi("name")), "")
