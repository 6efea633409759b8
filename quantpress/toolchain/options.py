"""The options that all llama.cpp tools share if they run a model."""

from __future__ import annotations

from typing import Literal


def processor_options(threads: int, device: Literal["cpu", "cuda"]) -> list[str]:
    """Returns the options for threads, device and log. If ``device`` is ``cpu``, even a build for CUDA offloads nothing
    to a GPU."""
    options = ["--threads", str(threads), "--no-log-prefix", "--no-log-timestamps", "--log-colors", "off"]
    return options if device == "cuda" else [*options, "--device", "none", "--fit", "off"]
