"""Reads figures, speed and memory from the output of llama.cpp's tools.

If a figure of quality is missing, the parser raises an error instead of using a default.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from quantpress.errors import ChildFailed
from quantpress.record.measurement import Divergence

_NUMBER = r"(-?(?:\d+(?:\.\d+)?|nan|inf))"
_ESTIMATE = re.compile(rf"Final estimate: PPL = {_NUMBER} \+/- {_NUMBER}")
#: A line about a buffer of a model or its context: ``load_tensors:   CPU_Mapped model buffer size =    90.00 MiB``.
#: Lines that begin with ``llama_model_loader:`` do not count, because they print the model's metadata, which strangers
#: wrote.
_BUFFER = re.compile(r"^(?!llama_model_loader:)\w+:\s+(\w+)\s+(\w+) buffer size =\s+(\d+\.\d+) MiB$", re.MULTILINE)
#: The line with the time of generation. It leaves out the first token, because that token's time belongs to the prompt.
_GENERATION = re.compile(r"^common_perf_print:\s+eval time =\s+(\d+\.\d+) ms /\s+(\d+) runs", re.MULTILINE)


@dataclass(frozen=True)
class RunFigures:
    """Speed and memory of a run that generated text.

    ``tokens_per_second`` is None if the model wrote fewer than two tokens. ``weights_bytes`` counts the weights in any
    memory. ``device_bytes`` counts all buffers on GPUs, and is None if there are none.
    """

    tokens_per_second: float | None
    weights_bytes: int
    device_bytes: int | None


def parse_estimate(said: str) -> tuple[float, float]:
    """Returns the perplexity and its standard error, from the output of a run without a base (the unquantized model's
    log-probabilities). Raises :class:`ChildFailed` if they are missing."""
    found = _ESTIMATE.findall(said)
    if len(found) != 1:
        raise ChildFailed(f"llama-perplexity printed {len(found)} final estimates, not one{tail(said)}")
    return float(found[0][0]), float(found[0][1])


def parse_divergence(said: str) -> tuple[float, float, Divergence]:
    """Returns the perplexity, its standard error and the divergence, from the output of a run against a base.

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
    """Returns the speed and the memory from llama-completion's log, which must have verbosity 4.

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
    """Returns the last four lines of an output that are not empty, in the form in which an error quotes them."""
    lines = [line.strip() for line in said.splitlines() if line.strip()][-4:]
    return "".join(f"\n  | {line[-300:]}" for line in lines)
