"""Names the machine that measures, because figures of speed and memory mean nothing without the machine's name."""

from __future__ import annotations

from typing import Literal

from quantpress.machine.gpu import ask_nvidia_smi
from quantpress.toolchain.machine import processor


def runner_name(device: Literal["cpu", "cuda"], threads: int) -> str:
    """Returns the GPU's name, or on a CPU the processor's name and the threads: ``AMD EPYC 7763, 2 threads``."""
    if device == "cuda":
        return _gpu_name() or "a GPU"
    model = " ".join(processor().model.split()) or "a processor"
    return f"{model}, {threads} {'thread' if threads == 1 else 'threads'}"


def _gpu_name() -> str:
    """Returns the name of the first GPU that this process may use, or an empty text if nvidia-smi gives none."""
    return next(iter(ask_nvidia_smi("name")), "")
