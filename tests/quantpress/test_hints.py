from __future__ import annotations

import pytest

from quantpress.hints import hint

RUNGS = ["Q4_K_S", "Q4_K_M", "IQ4_XS"]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("q4_k_m", "did you mean 'Q4_K_M'?"),
        ("Q4", "did you mean 'Q4_K_S'?"),
        ("Q4KM", "did you mean 'Q4_K_M'?"),
        ("nothing", "use one of Q4_K_S, Q4_K_M, IQ4_XS"),
        ("", "use one of Q4_K_S, Q4_K_M, IQ4_XS"),
    ],
)
def test_the_word_that_was_meant(word: str, said: str) -> None:
    assert hint(word, RUNGS) == said
