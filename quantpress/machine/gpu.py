"""Asks ``nvidia-smi``, the program of the NVIDIA driver, about this machine's GPUs. The program gets no credentials."""

from __future__ import annotations

import os
import shutil
import subprocess

from quantpress.machine.child import child_environment

#: Seconds to wait for nvidia-smi. It hangs if the driver does.
_TIMEOUT = 60


def ask_nvidia_smi(field: str) -> list[str]:
    """Returns the value of ``field`` for each GPU that this process may use.

    ``field`` is a name that ``nvidia-smi --query-gpu`` knows. Returns an empty list if nvidia-smi is missing, fails or
    does not answer.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        asked = subprocess.run(
            [program, f"--query-gpu={field}", "--format=csv,noheader,nounits", *_visible()],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env=child_environment(),
            timeout=_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return []
    lines = asked.stdout.splitlines() if asked.returncode == 0 else []
    return [line.strip() for line in lines if line.strip()]


def _visible() -> list[str]:
    """Returns the option of nvidia-smi that selects the GPUs named in ``CUDA_VISIBLE_DEVICES`` (numbers or UUIDs), in
    the same order. If the variable names no GPU, returns no option."""
    chosen = ",".join(each.strip() for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each.strip())
    return [f"--id={chosen}"] if chosen else []
