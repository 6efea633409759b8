"""How many windows the budget for log-probabilities has room for."""

from __future__ import annotations

from typing import Any

import pytest

from quantpress.evaluation.windows import logits_bytes, windows_within
from quantpress.source.source import Source
from tests.support import samples


def source(config: dict[str, Any]) -> Source:
    return Source(samples.source(), config, ())


@pytest.mark.parametrize(
    ("config", "windows", "budget", "expected"),
    [
        ({"vocab_size": 128_256}, 64, 20_000_000_000, 64),
        ({"vocab_size": 128_256}, 564, 20_000_000_000, 305),
        ({"vocab_size": 256_000}, 564, 20_000_000_000, 153),
        ({"text_config": {"vocab_size": 256_000}}, 564, 20_000_000_000, 153),
        ({"vocab_size": 256_000}, 64, 1_000, 2),
        ({"text_config": {"vocab_size": 151_936}, "vision_config": {"vocab_size": 32_000}}, 564, 20_000_000_000, 258),
        (
            {"talker": {"vocab_size": 3_072}, "thinker": {"text_config": {"vocab_size": 256_000}}},
            564,
            20_000_000_000,
            153,
        ),
        ({}, 64, 20_000_000_000, 64),
        ({}, 564, 20_000_000_000, 149),
        ({"vocab_size": None, "text_config": None}, 564, 1_000, 2),
    ],
)
def test_windows_are_reduced_to_what_the_budget_holds(
    config: dict[str, Any], windows: int, budget: int, expected: int
) -> None:
    found = windows_within(source(config), windows, budget)
    assert found == expected
    assert found in (2, windows) or logits_bytes(source(config), found) <= budget
