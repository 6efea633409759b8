"""quantpress knows from config.json alone, without importing transformers, whether a model is a language model that can
be kept whole."""

from __future__ import annotations

from typing import Any

import pytest

from quantizers import quantizer
from quantpress.errors import Refused
from quantpress.source.language_models import require_language_model

CONFIG: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2}


@pytest.mark.parametrize(
    ("kind", "architecture", "reason"),
    [
        ("llama", "LlamaForSequenceClassification", "LlamaForSequenceClassification is a classifier"),
        ("qwen2", "Qwen2ForTokenClassification", "Qwen2ForTokenClassification is a classifier"),
        ("qwen2", "Qwen2ForRewardModel", "Qwen2ForRewardModel is a classifier"),
        ("mistral", "MistralModel", "MistralModel is a model without a language head, as embedding models are"),
        ("bert", "BertForMaskedLM", "BertForMaskedLM is an encoder"),
        ("modernbert", "ModernBertForMaskedLM", "transformers has no language model for the model type 'modernbert'"),
        ("t5", "T5ForConditionalGeneration", "transformers has no language model for the model type 't5'"),
        (
            "bart",
            "BartForConditionalGeneration",
            "BartForConditionalGeneration is no language model that transformers knows",
        ),
        ("whisper", "Whisper\x1b[31mEncoder", "Whisper [31mEncoder is a model without a language head"),
    ],
)
def test_what_is_no_language_model_is_refused_by_name(kind: str, architecture: str, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        require_language_model({"model_type": kind, "architectures": [architecture]})
    assert str(refused.value).startswith(reason)
    assert str(refused.value).endswith(": leave the model out of the catalog")


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"model_type": "llama"},
        {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
        {"model_type": "llama", "architectures": ["LLaMAForCausalLM"]},
        {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]},
        {"model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"]},
        {"model_type": "bert", "architectures": ["BertLMHeadModel"]},
        {"model_type": "llama", "architectures": None},
        {"model_type": "llama", "architectures": "text"},
    ],
)
def test_language_models_pass(config: dict[str, Any]) -> None:
    require_language_model(config)


def test_every_causal_language_model_of_transformers_passes() -> None:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
    )

    tables = [*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items(), *MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES.items()]
    assert len(tables) > 200
    for kind, name in tables:
        require_language_model({"model_type": kind})
        require_language_model({"model_type": kind, "architectures": [name]})


def test_an_embedding_model_is_known_by_its_pooling() -> None:
    config = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}
    with pytest.raises(Refused, match=r"^its modules\.json makes it an embedding model, and only language models are"):
        require_language_model(config, {"config.json": "", "modules.json": ""})


def test_formats_that_load_the_language_model_alone_say_so() -> None:
    seeing = CONFIG | {"model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"]}
    whole = CONFIG | {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"]}
    for format_name, variant in [
        ("torchao", "int8wo"),
        ("bitsandbytes", "nf4"),
        ("compressed-tensors", "W8A8"),
        ("reference", "absmax-int8"),
    ]:
        with pytest.raises(
            Refused, match=r" loads language models alone, not all of this Qwen2VLForConditionalGeneration: use gguf$"
        ):
            quantizer(format_name).variant(variant, seeing)
        assert quantizer(format_name).variant(variant, whole).name == variant
    assert quantizer("gguf").variant("Q8_0", seeing).name == "Q8_0"
