"""Options of all llama.cpp tools that run a model."""

from __future__ import annotations

from typing import Literal


def processor_options(threads: int, device: Literal["cpu", "cuda"]) -> list[str]:
    """Returns the options for where a model runs. On ``cpu`` nothing is offloaded, even by a build for CUDA."""
    options = ["--threads", str(threads), "--no-log-prefix", "--no-log-timestamps", "--log-colors", "off"]
    return options if device == "cuda" else [*options, "--device", "none", "--fit", "off"]
