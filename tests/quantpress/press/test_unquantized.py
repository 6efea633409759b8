"""A source in FP8 blocks: which folder each format is made from, and what the card says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantizers import quantizer
from quantpress.press.unquantized import origin, plain_source, source_for
from tests.support import samples
from tests.support.cards import card, table_rows

FP8: dict[str, Any] = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
SOURCE, WORK = Path("/source"), Path("/work")


def test_formats_that_do_not_read_fp8_get_the_dequantized_source() -> None:
    assert source_for(quantizer("gguf"), SOURCE, FP8, WORK) == SOURCE
    assert source_for(quantizer("gptq"), SOURCE, FP8, WORK) == WORK / "bfloat16"
    assert source_for(quantizer("awq", "autoawq"), SOURCE, FP8, WORK) == WORK / "bfloat16"
    assert plain_source(SOURCE, FP8, WORK) == WORK / "bfloat16"  # which the yardstick measures


def test_an_unquantized_source_is_taken_as_it_is() -> None:
    for name in ("gguf", "gptq", "awq", "torchao"):
        assert source_for(quantizer(name), SOURCE, {}, WORK) == SOURCE
    assert plain_source(SOURCE, {}, WORK) == SOURCE
    assert origin({}) == {}


def test_the_card_says_what_the_source_was() -> None:
    entry = samples.entry("gguf", "Q8_0", bits=8.5, divergence=0.004)
    artifact = entry.artifact.model_copy(update={"details": origin(FP8)})
    text = card(samples.gguf(entries=[entry.model_copy(update={"artifact": artifact})]))
    said = "made from weights in fp8, in blocks of 128 x 128, dequantized to bfloat16"
    assert table_rows(text, "Variant")[-1][-1] == said
    assert said not in card(samples.gguf(entries=[entry]))
