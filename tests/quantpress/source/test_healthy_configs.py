"""The typed reader blocks no healthy model: it reads the default configuration of every causal language model that
transformers knows."""

from __future__ import annotations

import pytest
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from quantizers import formats, quantizer
from quantpress.errors import Refused
from quantpress.evaluation.windows import vocabulary
from quantpress.foreign_json import parse_object
from quantpress.source.config import model_config

#: transformers cannot make a default configuration of these two: it must be given their encoders.
WITHOUT_DEFAULTS = {"musicgen", "musicgen_melody"}


@pytest.mark.parametrize("kind", sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES} - WITHOUT_DEFAULTS))
def test_the_default_configuration_is_read(kind: str) -> None:
    config = CONFIG_MAPPING[kind]()
    for only_what_differs in (True, False):
        content = parse_object(config.to_json_string(use_diff=only_what_differs).encode(), "config.json")
        assert model_config(content).model_type == config.model_type
        assert vocabulary(content) > 0
        for name in formats():
            chosen = quantizer(name)
            for variant in chosen.ladders()["default"]:
                try:
                    chosen.variant(variant, content)
                except Refused as refusal:
                    assert "has a wrong" not in str(refusal)
