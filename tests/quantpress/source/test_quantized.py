"""A source that is quantized already is known by its config.json."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantizers import formats, quantizer
from quantizers.traits import traits_of
from quantpress.errors import Refused
from quantpress.source.quantized import quantization_of, require_unquantized

FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "bitsandbytes"),
        ({"text_config": {"quantization_config": {"quant_method": "awq"}}}, "awq"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"quantization_config": {"quant_algo": "NVFP4"}}, "NVFP4"),
        ({"quantization_config": {"bits": 4}}, "no method is named"),
        ({"quantization_config": {"quant_method": "a\x1b[2J\nb"}}, "a [2J b"),
        ({"quantization_config": FP8}, "fp8, in blocks of 128 x 128"),
    ],
)
def test_how_the_weights_are_stored(config: dict[str, Any], words: str) -> None:
    found = quantization_of(config)
    assert found is not None
    assert found.in_words == words


@pytest.mark.parametrize("config", [{}, {"quantization_config": None}, {"quantization_config": {}}])
def test_an_unquantized_source_says_nothing(config: dict[str, Any]) -> None:
    assert quantization_of(config) is None
    for name in formats():
        require_unquantized(config, name, traits_of(quantizer(name)).fp8_source)


def test_no_format_takes_a_copy_of_a_copy() -> None:
    config = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    for name in formats():
        with pytest.raises(Refused) as refused:
            require_unquantized(config, name, traits_of(quantizer(name)).fp8_source)
        assert str(refused.value) == (
            f"the source is quantized already (gptq), and {name} is made of unquantized models: name the model that it "
            "was made from"
        )


def test_fp8_blocks_are_for_formats_that_read_or_dequantize_them() -> None:
    taken = []
    for name in formats():
        try:
            require_unquantized({"quantization_config": FP8}, name, traits_of(quantizer(name)).fp8_source)
            taken.append(name)
        except Refused as refusal:
            assert str(refusal).endswith(": use gguf, gptq or awq")
    assert taken == ["gguf", "gptq", "awq"]


@pytest.mark.parametrize("changed", [{"activation_scheme": "static"}, {"weight_block_size": None}])
def test_other_fp8_is_blocked(changed: dict[str, Any]) -> None:
    for name in ("gguf", "gptq"):
        with pytest.raises(Refused, match=r"quantized already \(fp8"):
            require_unquantized({"quantization_config": FP8 | changed}, name, traits_of(quantizer(name)).fp8_source)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["quant_method", "weight_block_size", "activation_scheme", "bits"]), JSON))
def test_whatever_stands_there_is_read(given_config: dict[str, Any]) -> None:
    found = quantization_of({"quantization_config": given_config})
    assert (found is None) == (not given_config)
    assert found is None or "\n" not in found.in_words
