"""What the NVIDIA driver's own program says of this machine's GPUs. It is given no credentials."""

from __future__ import annotations

import shutil
import subprocess

from quantpress.child import child_environment


def ask_nvidia_smi(field: str, *options: str) -> list[str]:
    """A field of each GPU, as ``nvidia-smi --query-gpu`` names it; none where the program is missing or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    asked = subprocess.run(
        [program, f"--query-gpu={field}", "--format=csv,noheader,nounits", *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=child_environment(),
    )
    lines = asked.stdout.splitlines() if asked.returncode == 0 else []
    return [line.strip() for line in lines if line.strip()]
