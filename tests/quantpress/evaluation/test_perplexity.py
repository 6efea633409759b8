from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quantpress.errors import BadInput
from quantpress.evaluation.perplexity import cut_windows, log_normalizer, perplexity, token_losses

LOGITS = arrays(np.float32, (3, 17), elements=st.floats(-60, 60, width=32))


def test_a_uniform_prediction_has_the_vocabulary_as_its_perplexity() -> None:
    losses = token_losses(np.zeros((4, 50), dtype=np.float32), np.array([0, 7, 49, 3], dtype=np.int32))

    found = perplexity(losses)

    assert found.value == pytest.approx(50)
    assert (found.error, found.scored, found.non_finite) == (pytest.approx(0, abs=1e-6), 4, 0)


def test_the_error_is_one_standard_error() -> None:
    found = perplexity(np.array([1.0, 2.0, 3.0, 4.0]))

    assert found.value == pytest.approx(math.exp(2.5))
    assert found.error == pytest.approx(math.exp(2.5) * math.sqrt((7.5 - 6.25) / 3))


def test_positions_without_a_finite_loss_are_counted_and_left_out() -> None:
    found = perplexity(np.array([1.0, math.nan, 1.0, math.inf]))

    assert (found.value, found.scored, found.non_finite) == (pytest.approx(math.e), 4, 2)
    assert math.isnan(perplexity(np.array([math.nan])).value)


def test_overflowing_logits_give_no_finite_loss() -> None:
    logits = np.array([[0, math.inf, 1], [math.nan, 0, 0]], dtype=np.float32)

    assert not np.isfinite(token_losses(logits, np.array([0, 1], dtype=np.int32))).any()


@given(LOGITS)
def test_the_normalizer_is_the_naive_one(logits: np.ndarray) -> None:
    naive = np.log(np.exp(logits.astype(np.float64)).sum(axis=1))

    np.testing.assert_allclose(log_normalizer(logits)[:, 0], naive, rtol=0, atol=1e-5)


def test_windows_do_not_overlap_and_the_rest_is_left() -> None:
    assert cut_windows(range(11), n_ctx=4, windows=2).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_too_short_a_text() -> None:
    with pytest.raises(BadInput, match="11 tokens, 2 windows of 4, but 3 are asked for"):
        cut_windows(range(11), n_ctx=4, windows=3)
