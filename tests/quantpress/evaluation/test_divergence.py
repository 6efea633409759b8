from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quantpress.evaluation.divergence import summary, token_divergences

LOGITS = arrays(np.float32, (3, 17), elements=st.floats(-7, 7, width=32))


def log_probs(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    return wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))


@given(LOGITS, LOGITS)
def test_it_is_the_naive_divergence_and_never_negative(logits: np.ndarray, base: np.ndarray) -> None:
    base = log_probs(base)
    naive = (np.exp(base) * (base - log_probs(logits))).sum(axis=1)

    values, _ = token_divergences(logits, base.astype(np.float32))

    np.testing.assert_allclose(values, naive, rtol=1e-4, atol=1e-5)
    assert (values > -1e-5).all()


@given(LOGITS)
def test_a_model_does_not_diverge_from_itself(logits: np.ndarray) -> None:
    values, same_top = token_divergences(logits, log_probs(logits).astype(np.float32))

    np.testing.assert_allclose(values, 0, atol=1e-5)
    distinct = np.sort(logits)[:, -1] - np.sort(logits)[:, -2] > 1e-4
    assert same_top[distinct].all()


def test_a_known_value() -> None:
    base = np.log(np.array([[0.5, 0.25, 0.25]], dtype=np.float32))
    logits = np.log(np.array([[0.25, 0.5, 0.25]], dtype=np.float32)) + 3

    values, same_top = token_divergences(logits, base)

    assert values[0] == pytest.approx(0.25 * math.log(2))
    assert not same_top[0]


def test_what_the_base_finds_impossible_is_left_out() -> None:
    base = np.array([[0.0, -17.0]], dtype=np.float32)
    logits = np.array([[0.0, -90.0]], dtype=np.float32)

    assert token_divergences(logits, base)[0][0] == pytest.approx(0)


def test_the_summary() -> None:
    values = np.append(np.arange(101.0), math.nan)
    same_top = np.append(np.arange(101) < 80, False)

    found = summary(values, same_top)

    assert (found.mean, found.median, found.p99, found.maximum) == (50, 50, 99, 100)
    assert found.p999 == pytest.approx(99.9)
    assert found.mean_error == pytest.approx(math.sqrt((101**2 - 1) / 12 / 100))
    assert found.same_top == pytest.approx(80 / 101)
    assert found.same_top_error == pytest.approx(math.sqrt(80 / 101 * 21 / 101 / 100))


def test_broken_rows_are_not_a_number() -> None:
    logits = np.array([[math.nan, 0], [0, 1]], dtype=np.float32)
    base = np.log(np.full((2, 2), 0.5, dtype=np.float32))

    values, same_top = token_divergences(logits, base)

    assert math.isnan(values[0]) and math.isfinite(values[1])
    assert not same_top[0]
    assert math.isnan(summary(values[:1], same_top[:1]).mean)
