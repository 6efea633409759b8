"""The machine on which something was measured, by name: speed and memory mean nothing without it."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Literal

from quantpress.toolchain.machine import processor


def runner_name(device: Literal["cpu", "cuda"], threads: int) -> str:
    """The GPU's name, or the processor's and how many threads were used: ``AMD EPYC 7763, 2 threads``."""
    if device == "cuda":
        return _gpu_name() or "a GPU"
    model = " ".join(processor().model.split()) or "a processor"
    return f"{model}, {threads} {'thread' if threads == 1 else 'threads'}"


def _gpu_name() -> str:
    """The first GPU that this process may use, as the driver names it; empty where the driver's tool is missing."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return ""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"
    command = [smi, "--query-gpu=name", "--format=csv,noheader", f"--id={first}"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    return said.stdout.strip() if said.returncode == 0 else ""
