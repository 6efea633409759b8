"""The machine on which something was measured, by name: speed and memory mean nothing without it."""

from __future__ import annotations

from typing import Literal

from quantpress.machine.gpu import ask_nvidia_smi
from quantpress.toolchain.machine import processor


def runner_name(device: Literal["cpu", "cuda"], threads: int) -> str:
    """The GPU's name, or the processor's and how many threads were used: ``AMD EPYC 7763, 2 threads``."""
    if device == "cuda":
        return _gpu_name() or "a GPU"
    model = " ".join(processor().model.split()) or "a processor"
    return f"{model}, {threads} {'thread' if threads == 1 else 'threads'}"


def _gpu_name() -> str:
    """The first GPU that this process may use, as the driver names it; empty where the driver's tool is missing."""
    return next(iter(ask_nvidia_smi("name")), "")
