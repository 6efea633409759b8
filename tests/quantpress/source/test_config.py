"""What a stranger's config.json can do to a plan: nothing but be refused, in one line that names the key."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given

from quantizers import formats, quantizer
from quantizers.checkpoint.files import stored_dtype
from quantizers.checkpoint.widths import input_widths, output_widths
from quantizers.gguf.unquantized import made_from
from quantpress.errors import Refused
from quantpress.evaluation.windows import logits_bytes, vocabulary, windows_within
from quantpress.plan.estimate import weight_count
from quantpress.record.manifest import SourceRecord
from quantpress.source.config import ModelConfig, model_config
from quantpress.source.language_models import require_language_model
from quantpress.source.model_types import require_known_type
from quantpress.source.source import Source, SourceFile
from tests.support.foreign import objects

KEYS = tuple(ModelConfig.model_fields)
LLAMA = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"vocab_size": 0}, "vocab_size (Input should be greater than 0)"),
        ({"vocab_size": 10**30}, "vocab_size (Input should be less than or equal to 16777216)"),
        ({"text_config": "llama"}, "text_config (Input should be a valid dictionary or instance of TextConfig)"),
        ({"text_config": {"vocab_size": -1}}, "text_config.vocab_size (Input should be greater than 0)"),
        ({"head_dim": "64"}, "head_dim.0 (Input should be a valid integer)"),
        ({"intermediate_size": [64, 64.5]}, "intermediate_size.1 (Input should be a valid integer)"),
        ({"architectures": 5}, "architectures (Input should be a valid list)"),
        ({"vision_config": {"architectures": 5}}, "vision_config.architectures (Input should be a valid list)"),
        ({"model_type": ["llama"]}, "model_type (Input should be a valid string)"),
    ],
)
def test_a_wrong_value_is_named(config: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused) as refused:
        model_config(config)
    assert str(refused.value) == f"its config.json has a wrong {said}: ask upstream to mend it"


def test_null_is_as_if_the_key_were_missing() -> None:
    """transformers writes null for what a model does not set, and fills a missing part with defaults."""
    config = LLAMA | {"text_config": None, "head_dim": None, "quantization_config": None, "dtype": None}
    assert output_widths(config) == output_widths(LLAMA)
    assert stored_dtype(config) == "float16"
    assert vocabulary(config) == 262_144


def test_a_number_for_each_layer_is_read() -> None:
    widths = input_widths({"text_config": {"hidden_size": 64, "intermediate_size": [96, 128]}})
    assert list(widths.values()) == [64, 96, 128]
    assert model_config({"num_key_value_heads": [4, None, 2]}).num_key_value_heads == [4, 2]


def test_the_largest_of_nested_vocabularies_counts_if_it_is_one() -> None:
    assert vocabulary({"decoder": {"vocab_size": 7}, "encoder": {"vocab_size": 5}}) == 7
    assert vocabulary({"decoder": {"vocab_size": 0}}) == 262_144


#: One variant of each format, by a name that any machine and any sound model can have.
VARIANTS = {name: quantizer(name).ladders()["default"][-1] for name in formats()}


@pytest.mark.foreign
@given(objects(*KEYS, "decoder", "moe_num_experts", parts=("text_config", "vision_config", "quantization_config")))
def test_any_config_is_planned_or_refused(config: dict[str, Any]) -> None:
    """Each reader raises nothing but ``Refused``. What the typed reader takes, the plan can compute with."""
    try:
        model_config(config)
    except Refused as refusal:
        assert "\n" not in str(refusal)
        for read in (vocabulary, input_widths, stored_dtype, made_from):
            with pytest.raises(Refused):
                read(config)
        return
    source = Source(SourceRecord(repo="up/M", sha="0"), config, (SourceFile("model.safetensors", 10**9, None, ""),))
    assert weight_count(source) > 0 and logits_bytes(source, 2) > 0 and windows_within(source, 64, 10**9) >= 2
    assert stored_dtype(config) in ("float16", "bfloat16") and made_from(config) in ("F16", "stored")
    for name, variant in VARIANTS.items():
        try:
            assert quantizer(name).variant(variant, config).format == name
        except Refused as refusal:
            assert "\n" not in str(refusal)
    for check in (output_widths, require_known_type, require_language_model):
        with suppress(Refused):
            check(config)
