"""Reads values from a model's config.json.

:func:`model_config` returns the keys that quantpress needs, with types and ranges. For keys whose place differs among
architectures, :func:`values_of` looks in all parts of the file. Such a part is an inner mapping that describes a part
of the model (such as the language model of a larger model).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeGuard

from pydantic import BeforeValidator, Field

from quantpress.foreign_json import Foreign, validated

CONFIG_FILE = "config.json"
#: The largest width or number that config.json may name. The largest vocabulary in use has 262,144 tokens (Gemma 3),
#: and the widest layers have less than 100,000 inputs. The limit keeps what is computed from a number within 64 bits.
_LARGEST_NUMBER = 1 << 24


def _as_list(value: object) -> object:
    """Makes a list of one number. Some architectures name a number for each layer, or none for a layer."""
    if isinstance(value, list):
        return [each for each in value if each is not None]
    return [] if value is None else [value]


#: A number of something. Models without a part (such as attention) can name 0.
Count = Annotated[int, Field(ge=0, le=_LARGEST_NUMBER)]
#: A count for all layers, or one for each layer.
Counts = Annotated[list[Count], BeforeValidator(_as_list)]
#: A type's name. For a model of several parts, transformers can write a name for each part.
Dtype = str | dict[str, str | None]


class TextConfig(Foreign):
    """The keys of config.json that describe the language model. A key that is missing or null is None or empty."""

    vocab_size: Annotated[int, Field(gt=0, le=_LARGEST_NUMBER)] | None = None
    hidden_size: Counts = []
    intermediate_size: Counts = []
    moe_intermediate_size: Counts = []
    shared_expert_intermediate_size: Counts = []
    num_attention_heads: Counts = []
    num_key_value_heads: Counts = []
    head_dim: Counts = []
    num_experts: Counts = []
    num_local_experts: Counts = []
    n_routed_experts: Counts = []
    dtype: Dtype | None = None
    torch_dtype: Dtype | None = None

    @property
    def declared_dtype(self) -> str | None:
        """The name of the type that this part says the weights have."""
        declared = self.dtype or self.torch_dtype
        return str(declared) if declared else None


class VisionConfig(Foreign):
    """The keys that describe an encoder for images."""

    architectures: list[str] | None = None


class QuantizationConfig(Foreign):
    """The keys that describe how the weights are quantized already."""

    quant_method: str | None = None


class ModelConfig(TextConfig):
    """The typed part of config.json. The language model's keys are at the top level, or in ``text_config``."""

    model_type: str | None = None
    architectures: list[str] | None = None
    text_config: TextConfig | None = None
    vision_config: VisionConfig | None = None
    audio_config: Foreign | None = None
    quantization_config: QuantizationConfig | None = None

    @property
    def text(self) -> TextConfig:
        """The part that describes the language model."""
        return self if self.text_config is None else self.text_config

    @property
    def parts(self) -> tuple[TextConfig, ...]:
        """The top level, and ``text_config`` if there is one."""
        return (self,) if self.text_config is None else (self, self.text_config)


def model_config(config: Mapping[str, Any]) -> ModelConfig:
    """Returns the typed part of a config.json. Raises :class:`~quantpress.errors.Refused`, with the key, if a value has
    a wrong type or is out of range."""
    return validated(ModelConfig, config, CONFIG_FILE)


def single(counts: list[int]) -> int | None:
    """Returns the count that all layers share, or None if there is none."""
    return counts[0] if len(counts) == 1 else None


def is_count(value: object) -> TypeGuard[int]:
    """Whether a value of config.json is a number within the limits of a count."""
    # In Python, a bool is an int, so ``isinstance`` would accept True.
    return type(value) is int and 0 <= value <= _LARGEST_NUMBER


def values_of(config: Mapping[str, Any], key: str) -> Iterator[Any]:
    """Yields the values of ``key`` in ``config`` and in all mappings inside ``config``, outermost first."""
    inner = deque([config])
    while inner:
        part = inner.popleft()
        if key in part:
            yield part[key]
        inner += [value for value in part.values() if isinstance(value, Mapping)]
