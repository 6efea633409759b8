from __future__ import annotations

import pytest
import torch

from quantizers import quantizer
from quantpress.errors import BadInput, Refused
from tests.support import samples

SMOLLM2 = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "head_dim": 64}


def test_the_default_is_on_main_with_the_largest_group_size_that_fits() -> None:
    awq = quantizer("awq")

    assert awq.default_variants(SMOLLM2) == ["awq-4bit-64g"]
    assert awq.variant("awq-4bit-auto", SMOLLM2).branch == "main"
    assert awq.variant("awq-4bit-32g", SMOLLM2).branch == "awq-4bit-32g"
    assert awq.variant("awq-4bit-32g", SMOLLM2).parameters["zero_point"] is True


def test_names_and_group_sizes_are_checked() -> None:
    with pytest.raises(Refused, match="group size 128 does not divide hidden_size 576"):
        quantizer("awq").variant("awq-4bit-128g", SMOLLM2)
    with pytest.raises(BadInput, match="unknown AWQ variant 'awq-4bit-12g': did you mean 'awq-4bit-128g'"):
        quantizer("awq").check_name("awq-4bit-12g")


def test_another_edition_of_the_search_is_another_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    def fingerprint() -> str:
        quantized_by = {"quantizer": quantizer("awq").version()}
        return samples.awq().entries[0].recipe.model_copy(update=quantized_by).fingerprint

    monkeypatch.setattr("quantizers.checkpoint.format.version", lambda package: "7.6.0")
    before = fingerprint()
    assert quantizer("awq").version() == "gptqmodel 7.6.0, quantpress search 1"
    assert quantizer("gptq").version() == "gptqmodel 7.6.0"

    monkeypatch.setattr("quantizers.awq._SEARCH_EDITION", 2)
    assert fingerprint() != before


@pytest.mark.slow
def test_the_clipping_search_is_the_naive_one() -> None:
    from quantizers.gptqmodel.awq_search import best_clipping, quantize_groups

    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(8, 64, generator=generator)
    weight[:, 5] *= 6
    inputs = torch.randn(200, 64, generator=generator) * torch.linspace(0.1, 3, 64)

    found = best_clipping(weight, inputs, bits=4, group_size=32, steps=10)

    assert found.shape == (8, 2, 1)
    for row in range(8):
        for group in range(2):
            exact, seen = weight[row, group * 32 :][:32], inputs[:, group * 32 :][:, :32]
            bounds = [float(exact.abs().max()) * (1 - step * 0.05) for step in range(10)]
            errors = [
                float((seen @ (quantize_groups(exact.clamp(-bound, bound), 4) - exact)).square().mean())
                for bound in bounds
            ]
            chosen = min(range(10), key=lambda step: abs(bounds[step] - float(found[row, group])))
            assert errors[chosen] <= min(errors) * 1.001
    assert (found < weight.reshape(8, 2, 32).abs().amax(-1, keepdim=True)).any()


@pytest.mark.slow
def test_the_candidates_start_with_no_scaling() -> None:
    from quantizers.gptqmodel.awq_search import candidate_scales

    inputs, weights = torch.tensor([1.0, 4.0]), torch.tensor([0.5, 0.5])

    scales = list(candidate_scales(inputs, weights, steps=4))

    assert len(scales) == 5
    assert scales[0].tolist() == [1, 1]
    # With equal weights, the scales are the square roots of the inputs, divided so that their geometric mean is 1.
    assert torch.allclose(scales[3], torch.tensor([0.5**0.5, 2**0.5]), atol=1e-3)
