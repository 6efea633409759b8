"""Computes figures from the log-probabilities that llama-perplexity writes to a file or a pipe.

The figures are the hash of the token ids, the number of positions that are not finite, and the perplexity.
"""

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
    """The figures that the stored values give.

    ``perplexity`` and its standard error leave out positions that are not finite. If the tool printed its own
    perplexity, prefer it, because the stored values cut each loss to 16 nats above the loss of the top token.
    """

    token_sha256: str
    non_finite: int
    perplexity: float
    perplexity_error: float


def figures_of(path: Path) -> StreamFigures:
    """Computes the figures from a file. Raises the errors of :func:`figures_of_pipe`."""
    with path.open("rb") as stream:
        return _figures(stream, str(path))


def figures_of_pipe(path: Path) -> StreamFigures:
    """Computes the figures from a named pipe. Reads the pipe to its end even after an error, because otherwise the
    process that writes to the pipe would not finish.

    Raises ``BadInput`` if the stream is not valid or is cut short. Raises :class:`QuantpressError` if fewer than two
    positions are finite.
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
