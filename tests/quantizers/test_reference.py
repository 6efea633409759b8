"""The reference formulas keep their promises for all weights that hypothesis finds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from quantizers import quantizer
from quantpress.errors import BadInput

torch = pytest.importorskip("torch")

from quantizers.reference_math import (  # noqa: E402 - needs torch
    QuantizedMatrix,
    absmax,
    decomposed_weight,
    llm_int8_product,
    outlier_columns,
    zeropoint,
)

#: Finite weights of any usual size. Below about 1e-30, float32 is too inexact to speak of half a step.
VALUES = st.floats(-1e4, 1e4, width=32).map(lambda value: 0.0 if abs(value) < 1e-30 else value)
MATRICES = arrays("float32", array_shapes(min_dims=2, max_dims=2, max_side=12), elements=VALUES).map(torch.from_numpy)
METHODS = pytest.mark.parametrize("method", [absmax, zeropoint])
GRANULARITIES = pytest.mark.parametrize("per_channel", [False, True])
#: float32 rounds the division, the product and the result by 2**-24 each; a level is at most 255 steps from zero.
SLACK = 1 + 255 * 2**-21


def steps(weight: torch.Tensor, made: QuantizedMatrix) -> torch.Tensor:
    """Returns each weight's scale, or 0 for a weight that is 0 on the zero level and so has no error."""
    scale = made.scale.expand_as(weight)
    return torch.where((made.levels == made.zero) & (weight == 0), 0.0, scale)


@METHODS
@GRANULARITIES
@settings(deadline=None, max_examples=40)
@given(weight=MATRICES)
def test_the_error_is_at_most_half_a_step(method: type, per_channel: bool, weight: torch.Tensor) -> None:
    made = method(weight, per_channel=per_channel)

    error = (made.dequantize() - weight).abs()
    assert (error <= made.scale / 2 * SLACK).all()
    assert made.levels.dtype == torch.int8
    assert made.scale.shape == ((weight.shape[0], 1) if per_channel else (1, 1))


@METHODS
@settings(deadline=None, max_examples=40)
@given(weight=MATRICES)
def test_steps_per_channel_are_never_larger_than_the_whole_tensors(method: type, weight: torch.Tensor) -> None:
    """So the largest possible error per channel is not larger either. A single error can be, because the other method's
    levels can happen to hit a weight exactly."""
    whole, channel = method(weight, per_channel=False), method(weight, per_channel=True)

    assert (steps(weight, channel) <= steps(weight, whole) * SLACK).all()


@METHODS
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000))
def test_per_channel_is_no_worse_on_weights_as_models_have_them(method: type, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(16, 256, generator=generator) * torch.linspace(0.2, 2, 16)[:, None]

    whole, channel = (
        (method(weight, per_channel=per_channel).dequantize() - weight).abs().max() for per_channel in (False, True)
    )
    assert channel <= whole * SLACK


@METHODS
@GRANULARITIES
@settings(deadline=None, max_examples=40)
@given(weight=MATRICES)
def test_zero_stays_zero(method: type, per_channel: bool, weight: torch.Tensor) -> None:
    once = method(weight, per_channel=per_channel).dequantize()

    assert (once[weight == 0] == 0).all()


def test_the_papers_formulas_on_numbers_that_can_be_checked_by_hand() -> None:
    weight = torch.tensor([[0.5, -1.27, 0.004], [0.0, 2.54, 1.0]])

    assert absmax(weight, per_channel=False).levels.tolist() == [[25, -64, 0], [0, 127, 50]]
    assert absmax(weight, per_channel=True).levels.tolist() == [[50, -127, 0], [0, 127, 50]]
    affine = zeropoint(torch.tensor([[0.0, 2.55, 1.0]]), per_channel=False)
    assert affine.levels.tolist() == [[-128, 127, -28]]
    assert (affine.zero.item(), affine.scale.item()) == (-128, pytest.approx(0.01))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), outlier=st.integers(0, 31))
def test_outliers_are_exact_in_the_product(seed: int, outlier: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    inputs, weight = torch.zeros(5, 32), torch.randn(7, 32, generator=generator)
    inputs[2, outlier] = 61.5
    # The feature counts as an outlier in all tokens, also where its value is small.
    inputs[3, outlier] = 0.001

    assert outlier_columns(inputs, 6.0).nonzero().flatten().tolist() == [outlier]
    torch.testing.assert_close(llm_int8_product(inputs, weight), inputs @ weight.T, rtol=0, atol=0)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000))
def test_the_decomposition_makes_up_for_outliers(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    inputs, weight = torch.randn(20, 64, generator=generator), torch.randn(9, 64, generator=generator)
    inputs[:, [3, 40]] *= 60
    exact = inputs @ weight.T

    with_outliers = (llm_int8_product(inputs, weight) - exact).abs().mean()
    without = (llm_int8_product(inputs, weight, threshold=torch.inf) - exact).abs().mean()

    assert with_outliers < without / 4


def test_outlier_columns_of_the_weight_stay_and_have_no_say_in_the_scale() -> None:
    weight = torch.tensor([[100.0, 1.27, -0.5], [3.0, 0.1, 2.54]])

    made = decomposed_weight(weight, torch.tensor([True, False, False]))

    assert made[:, 0].tolist() == [100.0, 3.0]
    torch.testing.assert_close(made[:, 1:], torch.tensor([[1.27, -0.5], [0.1, 2.54]]), rtol=0, atol=1e-6)
    assert torch.equal(decomposed_weight(weight, torch.ones(3, dtype=torch.bool)), weight)


def test_variants() -> None:
    reference = quantizer("reference")

    assert reference.default_variants({}) == [
        "absmax-int8",
        "zeropoint-int8",
        "absmax-int8-channel",
        "zeropoint-int8-channel",
        "llm-int8",
    ]
    assert [name for name in reference.default_variants({}) if reference.variant(name, {}).branch == "main"] == [
        "absmax-int8-channel"
    ]
    with pytest.raises(BadInput, match="did you mean 'absmax-int8'"):
        reference.check_name("absmax-8")


def test_nobody_gets_the_reference_format_without_asking(tmp_path: Path) -> None:
    from quantpress.catalog.schema import Catalog

    catalog = Catalog.model_validate_json(json.dumps({"models": ["press/model"]}))

    assert "reference" not in catalog.formats_of(catalog.models[0])
