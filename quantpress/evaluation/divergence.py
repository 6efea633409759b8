"""Computes how far a model diverges from the unquantized model, as llama-perplexity does (``kl_divergence``)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from quantpress.evaluation.perplexity import Floats, Logits, log_normalizer, standard_error
from quantpress.record.measurement import Divergence

#: The sum leaves out the tokens to which the unquantized model gives a probability of exp(-16) or less, because the
#: file of log-probabilities does not hold their exact values (perplexity.cpp, ``p_log_base > -16.f``).
_FLOOR = -16.0


def token_divergences(logits: Logits, base: Logits) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Returns two arrays with one value per row: the divergence from ``base`` in nats, and whether both models find
    the same token most likely.

    ``logits`` are the quantized model's logits. ``base`` holds the unquantized model's log-probabilities. Both are
    float32 ``[rows, n_vocab]``. A row with non-finite numbers gives NaN and False.
    """
    log_sum = log_normalizer(logits).astype(np.float32)
    kept = base > np.float32(_FLOOR)
    with np.errstate(invalid="ignore"):
        terms = np.exp(base) * (base - logits + log_sum)
    broken = ~np.isfinite(log_sum[:, 0]) | ~np.isfinite(base).all(axis=1)
    values = np.where(kept, terms, np.float32(0)).sum(axis=1, dtype=np.float64)
    values[broken] = math.nan
    same_top = (logits.argmax(axis=1) == base.argmax(axis=1)) & ~broken
    return values, same_top


def summary(values: Floats, same_top: npt.NDArray[np.bool_]) -> Divergence:
    """Returns the statistics over all scored positions.

    Positions with a non-finite value are left out here. The evaluation counts non-finite positions separately.
    """
    finite = np.isfinite(values)
    kept = values[finite]
    if kept.size == 0:
        nan = math.nan
        return Divergence(
            mean=nan, mean_error=nan, median=nan, p99=nan, p999=nan, maximum=nan,
            same_top=nan, same_top_error=nan,
        )  # fmt: skip
    median, p99, p999 = (float(value) for value in np.percentile(kept, [50, 99, 99.9]))
    share = float(same_top[finite].mean())
    return Divergence(
        mean=float(kept.mean()),
        mean_error=standard_error(kept),
        median=median,
        p99=p99,
        p999=p999,
        maximum=float(kept.max()),
        same_top=share,
        same_top_error=math.sqrt(share * (1 - share) / max(kept.size - 1, 1)),
    )
