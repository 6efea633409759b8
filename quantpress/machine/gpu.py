"""What the NVIDIA driver's own program says of this machine's GPUs. It is given no credentials."""

from __future__ import annotations

import os
import shutil
import subprocess

from quantpress.machine.child import child_environment


def ask_nvidia_smi(field: str) -> list[str]:
    """A field of each GPU that this process may use, as ``nvidia-smi --query-gpu`` names it; none where the program is
    missing or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    asked = subprocess.run(
        [program, f"--query-gpu={field}", "--format=csv,noheader,nounits", *_visible()],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=child_environment(),
    )
    lines = asked.stdout.splitlines() if asked.returncode == 0 else []
    return [line.strip() for line in lines if line.strip()]


def _visible() -> list[str]:
    """The option for CUDA's own choice of GPUs: numbers or UUIDs, in its order."""
    chosen = ",".join(each.strip() for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each.strip())
    return [f"--id={chosen}"] if chosen else []
