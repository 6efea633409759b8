"""Decides the type and the path of the unquantized GGUF, from which all rungs (GGUF variants) of a model are made."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, get_args

from quantizers.gguf.ladder import RUNGS
from quantizers.protocol import Parameters
from quantpress.errors import QuantpressError, Refused
from quantpress.record.clients import findable
from quantpress.source.config import model_config
from quantpress.source.weights import matrix_weights

#: The types that the matrices of an unquantized GGUF can have. ggml and the safetensors format use the same names.
UnquantizedType = Literal["F16", "BF16", "F32"]
#: A recipe contains this word if the rungs are made from the type in which the source stores its weights.
AS_STORED = "stored"

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def made_from(config: Parameters) -> str:
    """Returns the type that every rung of a model is made from, in the recipe's words: ``F16`` or :data:`AS_STORED`.

    If config.json declares float16, the type is ``F16``. Some finetunes declare float16 but store weights in another
    type. These weights become float16, as they do for everyone who loads the model. The preflight check refuses a model
    whose values float16 cannot hold.
    """
    for part in model_config(config).parts:
        if declared := part.declared_dtype:
            return "F16" if declared.removeprefix("torch.") == "float16" else AS_STORED
    return AS_STORED


def storage_of(source: Path, recipe_from: str) -> UnquantizedType:
    """Returns the type for the matrices of the unquantized GGUF. It is the type in which the conversion loses
    least.

    If ``recipe_from`` is ``F16``, the type is F16. Otherwise it is the type that most of the matrices' weights have,
    where float64 counts as F32. If no weight is a 16-, 32- or 64-bit float, the type is F16. (The converter's own
    ``--outtype auto`` looks only at the first matrix in 16 bits, and rounds float32 to float16 if there is none.) Here
    float32 stays float32, because otherwise every rung would lose range and digits, and because few sources have it.
    """
    if recipe_from != AS_STORED:
        return "F16"
    stored = matrix_weights(source)
    weights: dict[UnquantizedType, int] = {
        "F16": stored["F16"],
        "BF16": stored["BF16"],
        "F32": stored["F32"] + stored["F64"],
    }
    return max(get_args(UnquantizedType), key=lambda storage: weights[storage])


def unquantized_name(model_name: str, storage: UnquantizedType) -> str:
    """Returns the unquantized GGUF's file name. Raises :class:`Refused` if the model's name is not a plain file
    name."""
    return f"{file_stem(model_name)}-{storage}.gguf"


def unquantized_file(prepared: Path, model_name: str) -> Path:
    """Returns the unquantized GGUF's path in the folder ``prepared``, which the step ``prepare`` filled. Raises
    :class:`QuantpressError` if the folder has no such file."""
    files = [prepared.resolve() / unquantized_name(model_name, storage) for storage in get_args(UnquantizedType)]
    for file in files:
        if file.exists():
            return file
    raise QuantpressError(
        f"{prepared} holds no unquantized GGUF of {model_name}: remove the model's work folder and press it again"
    )


def file_stem(model_name: str) -> str:
    """Returns the model's name for file names. If the name contains a rung's name, clients would take any file for that
    rung, so it is changed (:func:`quantpress.record.clients.findable`).

    Raises :class:`Refused` if ``model_name`` is not a plain file name.
    """
    if not _SAFE_NAME.fullmatch(model_name):
        raise Refused(f"model name {model_name!r} is not a plain file name: use letters, digits, '.', '_' and '-'")
    return findable(model_name, RUNGS)
