"""Figures of a run from its stream of log-probabilities: token ids, positions that are not finite, perplexity."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from quantpress.errors import QuantpressError
from quantpress.evaluation.logits import parse_header, raw_windows, scales_of, token_sha256


@dataclass(frozen=True)
class StreamFigures:
    """Figures from the stored values.

    ``perplexity`` and its standard error are over the finite positions. In the stored values no loss is more than
    16 nats above the loss of the top token, so the tool's own figures are better.
    """

    token_sha256: str
    non_finite: int
    perplexity: float
    perplexity_error: float


def figures_of(path: Path) -> StreamFigures:
    """Reads a file to its end. Raises as :func:`figures_of_pipe` does."""
    with path.open("rb") as stream:
        return _figures(stream, str(path))


def figures_of_pipe(path: Path) -> StreamFigures:
    """Reads a named pipe to its end, even after an error: its writer must never wait for a reader that is gone.

    Raises ``BadInput`` if the stream is cut short, :class:`QuantpressError` if fewer than two positions are finite.
    """
    with path.open("rb") as stream:
        try:
            return _figures(stream, "the pipe of log-probabilities")
        finally:
            while stream.read(1 << 20):
                pass


def _figures(stream: BinaryIO, name: str) -> StreamFigures:
    header = parse_header(stream, name)
    losses = []
    first = header.n_ctx // 2
    for tokens, rows in zip(header.tokens, raw_windows(stream, header, name), strict=True):
        scale, floor = scales_of(rows)
        targets = tokens[first + 1 :]
        steps = rows[np.arange(len(targets)), 4 + targets].astype(np.float64)
        losses.append(-(steps * scale[:, 0] + floor[:, 0]))
    loss = np.concatenate(losses)
    finite = loss[np.isfinite(loss)]
    if finite.size < 2:
        raise QuantpressError(f"none of the {loss.size} scored positions has a finite loss: the model is broken")
    perplexity = math.exp(finite.mean())
    error = perplexity * float(finite.std()) / math.sqrt(finite.size - 1)
    return StreamFigures(token_sha256(header.tokens), int(loss.size - finite.size), perplexity, error)
