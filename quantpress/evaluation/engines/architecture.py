"""Which of transformers' classes loads a checkpoint, where it may read more than text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantpress.errors import Refused


def auto_class(model: Path) -> Any:
    """The class whose ``from_pretrained`` loads the checkpoint in the folder ``model``.

    A checkpoint of a multimodal model is loaded as what it is: its language model's class alone would look for
    weights under other names, and go on with random ones. Fed with token ids it is the language model.
    Raises :class:`Refused` for a model that writes no text token by token, and for one that transformers does not know.
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
