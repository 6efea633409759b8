from __future__ import annotations

import pytest

from quantizers.checkpoint.widths import check_group_size, dividing, input_widths, largest_group_size
from quantpress.errors import Refused

SMOLLM2 = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "head_dim": 64}
LLAMA3 = {"hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32}


def test_the_largest_group_size_that_divides_every_width() -> None:
    assert dividing(LLAMA3) == [128, 64, 32]
    assert dividing(SMOLLM2) == [64, 32]
    assert largest_group_size(SMOLLM2) == 64


def test_a_group_size_that_does_not_divide_names_the_width_and_what_does() -> None:
    with pytest.raises(Refused) as refused:
        check_group_size(SMOLLM2, 128)

    assert str(refused.value) == (
        "group size 128 does not divide hidden_size 576, inputs of attention, gate and up projections:"
        " use 64 or 32 or -1 (a whole row)"
    )
    check_group_size(SMOLLM2, 64)
    check_group_size(SMOLLM2, -1)


def test_heads_wider_than_the_hidden_state_count() -> None:
    config = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 3, "head_dim": 32}

    assert 96 in input_widths(config).values()
    assert largest_group_size(config) == 32


def test_experts_and_text_configs() -> None:
    mixture = LLAMA3 | {"moe_intermediate_size": 1472}

    assert largest_group_size({"text_config": mixture}) == 64


def test_widths_that_no_group_size_divides() -> None:
    with pytest.raises(Refused, match=r"no group size of 128, 64, 32 divides intermediate_size 100, inputs of down"):
        largest_group_size({"hidden_size": 128, "intermediate_size": 100})


def test_a_config_without_widths() -> None:
    with pytest.raises(Refused, match="names no hidden_size"):
        input_widths({"model_type": "strange"})
