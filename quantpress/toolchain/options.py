"""Options that all llama.cpp tools which run a model take."""

from __future__ import annotations

from typing import Literal


def processor_options(threads: int, device: Literal["cpu", "cuda"]) -> list[str]:
    """Where a model runs. On ``cpu`` nothing is offloaded, whatever the tools were built for."""
    options = ["--threads", str(threads), "--no-log-prefix", "--no-log-timestamps", "--log-colors", "off"]
    return options if device == "cuda" else [*options, "--device", "none", "--fit", "off"]
