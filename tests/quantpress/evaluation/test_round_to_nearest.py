from __future__ import annotations

import pytest
import torch

from quantpress.evaluation.round_to_nearest import round_to_nearest


def test_asymmetric_levels_span_the_group() -> None:
    weight = torch.tensor([[0.0, 1.0, 1.4, 3.0]])

    assert round_to_nearest(weight, 2, 4, symmetric=False).tolist() == [[0, 1, 1, 3]]


def test_symmetric_levels_lie_around_zero() -> None:
    weight = torch.tensor([[-1.5, 0.2, 0.7, 1.5]])

    # Two bits give the levels -2 to 1, with a step of 2 * 1.5 / 3.
    assert round_to_nearest(weight, 2, 4, symmetric=True).tolist() == [[-2, 0, 1, 1]]


def test_each_group_has_its_own_scale() -> None:
    weight = torch.tensor([[0.0, 3.0, 0.0, 300.0], [0.0, 1.0, 0.0, 2.0]])

    assert round_to_nearest(weight, 2, 2, symmetric=False).tolist() == weight.tolist()
    assert round_to_nearest(weight, 2, -1, symmetric=False)[0].tolist() == [0, 0, 0, 300]


@pytest.mark.parametrize("symmetric", [True, False])
def test_more_bits_are_closer(symmetric: bool) -> None:
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(1)).half()

    errors = [
        float((round_to_nearest(weight, bits, 64, symmetric) - weight).float().square().mean()) for bits in (3, 4, 8)
    ]

    assert errors[0] > 3 * errors[1] > 300 * errors[2]
    assert round_to_nearest(weight, 4, 64, symmetric).dtype == torch.float16
