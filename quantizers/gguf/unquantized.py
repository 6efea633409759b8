"""The unquantized GGUF, from which all rungs are made: its type, and where its file lies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, get_args

from quantizers.protocol import Parameters
from quantpress.errors import QuantpressError, Refused
from quantpress.source.weights import matrix_weights

#: The types that a converted model's matrices have; the names are ggml's and the safetensors format's.
UnquantizedType = Literal["F16", "BF16", "F32"]
#: The recipe's word for the type in which the source stores its weights.
AS_STORED = "stored"

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def made_from(config: Parameters) -> str:
    """The type that every rung of a model is made from, as its recipe says it: ``F16`` or :data:`AS_STORED`.

    If config.json declares float16, that counts. Some finetunes store weights in another type; these weights become
    float16, as they do for everyone who loads the model. A model with values that float16 cannot hold is refused.
    """
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        if declared := part.get("dtype") or part.get("torch_dtype"):
            return "F16" if str(declared).removeprefix("torch.") == "float16" else AS_STORED
    return AS_STORED


def storage_of(source: Path, recipe_from: str) -> UnquantizedType:
    """The type of the unquantized GGUF's matrices. It is chosen so that converting loses nothing that matters for
    quantizing.

    It is the type that most of the matrices' weights have, or F16 if none of them is a 16- or 32-bit float. (The
    converter's own ``--outtype auto`` does the same, but looks only at the first matrix.) float32 stays float32, while
    the converter would round it to float16: such sources are few, and every rung would lose that range and those
    digits.
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
    """The file name of the unquantized GGUF. Raises :class:`Refused` if the model's name is not a plain file name."""
    return f"{checked(model_name)}-{storage}.gguf"


def unquantized_file(prepared: Path, model_name: str) -> Path:
    """The unquantized GGUF in the folder that ``prepare`` filled. Raises :class:`QuantpressError` if there is none."""
    files = [prepared.resolve() / unquantized_name(model_name, storage) for storage in get_args(UnquantizedType)]
    for file in files:
        if file.exists():
            return file
    raise QuantpressError(f"{prepared} holds no unquantized GGUF of {model_name}: prepare it again")


def checked(model_name: str) -> str:
    """Returns ``model_name``. Raises :class:`Refused` if it is not a plain file name."""
    if not _SAFE_NAME.fullmatch(model_name):
        raise Refused(f"model name {model_name!r} is not a plain file name: use letters, digits, '.', '_' and '-'")
    return model_name
