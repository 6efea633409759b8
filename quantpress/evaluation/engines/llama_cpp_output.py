"""Parses the output of llama.cpp's tools: figures, speed and memory. A missing figure is an error, never a default."""

from __future__ import annotations

import re
from dataclasses import dataclass

from quantpress.errors import ChildFailed
from quantpress.record.measurement import Divergence

_NUMBER = r"(-?(?:\d+(?:\.\d+)?|nan|inf))"
_ESTIMATE = re.compile(rf"Final estimate: PPL = {_NUMBER} \+/- {_NUMBER}")
#: Buffers that hold a model and its context, as ``load_tensors:   CPU_Mapped model buffer size =    90.00 MiB``.
#: The model's metadata is text from strangers; lines that print it begin with ``llama_model_loader:``.
_BUFFER = re.compile(r"^(?!llama_model_loader:)\w+:\s+(\w+)\s+(\w+) buffer size =\s+(\d+\.\d+) MiB$", re.MULTILINE)
#: Counts all tokens except the first, whose time belongs to the prompt.
_GENERATION = re.compile(r"^common_perf_print:\s+eval time =\s+(\d+\.\d+) ms /\s+(\d+) runs", re.MULTILINE)


@dataclass(frozen=True)
class RunFigures:
    """Speed and memory of a run that generated.

    Tokens per second (None if it wrote fewer than two), bytes of the weights in any memory, and bytes of all buffers on
    GPUs (None if there are none).
    """

    tokens_per_second: float | None
    weights_bytes: int
    device_bytes: int | None


def parse_estimate(said: str) -> tuple[float, float]:
    """Returns perplexity and its standard error from a plain run. Raises :class:`ChildFailed` if they are missing."""
    found = _ESTIMATE.findall(said)
    if len(found) != 1:
        raise ChildFailed(f"llama-perplexity printed {len(found)} final estimates, not one{tail(said)}")
    return float(found[0][0]), float(found[0][1])


def parse_divergence(said: str) -> tuple[float, float, Divergence]:
    """Returns perplexity, its error and the divergence from a run against a base.

    Raises :class:`ChildFailed` if one of the figures is missing.
    """

    def figure(label: str, after: str = "") -> tuple[float, ...]:
        found = re.findall(rf"^{label}:\s+{_NUMBER}{after}", said, re.MULTILINE)
        if len(found) != 1:
            raise ChildFailed(f"llama-perplexity printed {len(found)} lines {label!r}, not one{tail(said)}")
        return tuple(float(value) for value in (found[0] if isinstance(found[0], tuple) else (found[0],)))

    error = rf" ±\s+{_NUMBER}"
    perplexity, perplexity_error = figure(r"Mean PPL\(Q\)\s*", error)
    mean, mean_error = figure("Mean    KLD", error)
    same_top, same_top_error = figure("Same top p", error)
    divergence = Divergence(
        mean=mean,
        mean_error=mean_error,
        median=figure("Median  KLD")[0],
        p99=figure("99.0%   KLD")[0],
        p999=figure("99.9%   KLD")[0],
        maximum=figure("Maximum KLD")[0],
        same_top=same_top / 100,
        same_top_error=same_top_error / 100,
    )
    return perplexity, perplexity_error, divergence


def parse_run(said: str) -> RunFigures:
    """Returns speed and memory from the log of llama-completion at verbosity 4.

    Raises :class:`ChildFailed` if the log names no buffer of weights.
    """
    buffers = [(place, kind, int(float(size) * (1 << 20))) for place, kind, size in _BUFFER.findall(said)]
    weights = sum(size for _, kind, size in buffers if kind == "model")
    if not weights:
        raise ChildFailed(f"llama-completion named no buffer of weights{tail(said)}")
    device = sum(size for place, _, size in buffers if not (place.startswith("CPU") or place.endswith("_Host")))
    found = _GENERATION.search(said)
    milliseconds, runs = (float(found[1]), int(found[2])) if found else (0.0, 0)
    speed = runs / milliseconds * 1000 if milliseconds else None
    return RunFigures(tokens_per_second=speed, weights_bytes=weights, device_bytes=device or None)


def tail(said: str) -> str:
    """Returns the last lines of an output, as an error quotes them."""
    lines = [line.strip() for line in said.splitlines() if line.strip()][-4:]
    return "".join(f"\n  | {line[-300:]}" for line in lines)
