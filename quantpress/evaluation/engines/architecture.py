"""Chooses the transformers class that loads a checkpoint. The checkpoint can be multimodal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantpress.errors import Refused


def auto_class(model: Path) -> Any:
    """Returns the class whose ``from_pretrained`` loads the checkpoint in the folder ``model``.

    The multimodal class loads a multimodal checkpoint. The class of the language model alone would look for the weights
    under other names, and go on with random weights. If the multimodal model gets only token ids, it computes the same
    as its language model.
    Raises :class:`Refused` if transformers does not know the model, or if the model does not write text token by token.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMultimodalLM
    from transformers.models.auto import modeling_auto

    try:
        config = AutoConfig.from_pretrained(str(model), local_files_only=True, trust_remote_code=False)
    except ValueError as error:
        raise Refused(f"transformers cannot read its config.json: {str(error).splitlines()[0]}") from None
    multimodal = modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES.get(config.model_type)
    if multimodal in (config.architectures or []):
        return AutoModelForMultimodalLM
    if type(config) in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForCausalLM
    if type(config) in modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING:
        return AutoModelForMultimodalLM
    raise Refused(
        f"transformers has no language model for the model type {config.model_type!r}: "
        "leave the model out of the catalog"
    )


def model_class(model: Path) -> tuple[Any, Any]:
    """Returns the class that :func:`auto_class` instantiates for the checkpoint in the folder ``model``, and the config
    that the class gets. Raises :class:`Refused` as :func:`auto_class` does.

    The choice is that of ``from_pretrained`` (transformers 5.17, models/auto/auto_factory.py): a class of a language
    model alone gets only the language model's part of the config.
    """
    from transformers import AutoConfig
    from transformers.models.auto.auto_factory import _get_model_class

    auto = auto_class(model)
    config = AutoConfig.from_pretrained(str(model), local_files_only=True, trust_remote_code=False)
    chosen = _get_model_class(config, auto._model_mapping)
    text = config.get_text_config()
    if text is not config and chosen.config_class is type(text):
        if quantization := getattr(config, "quantization_config", None):
            text.quantization_config = quantization
        config = text
    return chosen, config
