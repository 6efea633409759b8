"""Computes perplexity from logits, as llama-perplexity does (``perplexity_v2`` in llama.cpp's perplexity.cpp)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quantpress.errors import BadInput

Floats = npt.NDArray[np.float64]
Logits = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Perplexity:
    """A perplexity and its standard error, ``error``.

    ``scored`` counts all scored positions. ``value`` and ``error`` leave out the ``non_finite`` positions among them.
    """

    value: float
    error: float
    scored: int
    non_finite: int


def first_scored(n_ctx: int) -> int:
    """Returns the first position of a window whose prediction is scored. The last scored position is ``n_ctx - 2``."""
    return n_ctx // 2


def cut_windows(tokens: npt.ArrayLike, n_ctx: int, windows: int) -> Tokens:
    """Cuts token ids into windows that do not overlap, and returns the first ``windows``, int32 ``[windows, n_ctx]``.

    Raises :class:`BadInput` if there are too few tokens.
    """
    ids = np.asarray(tokens, dtype=np.int32)
    available = ids.size // n_ctx
    if available < windows:
        raise BadInput(
            f"the evaluation text has {ids.size} tokens, {available} windows of {n_ctx}, but {windows} are asked"
            f" for: give a longer text or ask for fewer windows"
        )
    return ids[: windows * n_ctx].reshape(windows, n_ctx)


def log_normalizer(logits: Logits) -> Floats:
    """Returns, for each row, the logarithm of the sum of the logits' exponentials over the vocabulary.

    ``logits`` are ``[rows, n_vocab]``, and the result is float64 ``[rows, 1]``. If a row holds a NaN or a positive
    infinity, its result is NaN.
    """
    top = logits.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        total = np.exp(logits - top).sum(axis=1, keepdims=True, dtype=np.float64)
    normalizer: Floats = top.astype(np.float64) + np.log(total)
    return normalizer


def token_losses(logits: Logits, targets: Tokens) -> Floats:
    """Returns the negative log-likelihood in nats of ``targets`` ``[rows]`` under ``logits`` ``[rows, n_vocab]``."""
    chosen = logits[np.arange(len(targets)), targets].astype(np.float64)
    loss: Floats = log_normalizer(logits)[:, 0] - chosen
    return loss


def perplexity(losses: Floats) -> Perplexity:
    """Returns the exponential of the mean loss, with its standard error. Both are NaN if no loss is finite."""
    finite = losses[np.isfinite(losses)]
    non_finite = int(losses.size - finite.size)
    if finite.size == 0:
        return Perplexity(math.nan, math.nan, int(losses.size), non_finite)
    value = math.exp(float(finite.mean()))
    return Perplexity(value, value * standard_error(finite), int(losses.size), non_finite)


def standard_error(values: Floats) -> float:
    """Returns the standard error of the mean, ``sqrt((mean(x²) - mean(x)²) / (n - 1))``, or 0 for a single value."""
    if values.size < 2:
        return 0.0
    return math.sqrt(max(float(values.var()), 0.0) / (values.size - 1))
