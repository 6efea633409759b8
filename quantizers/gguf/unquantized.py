"""The unquantized GGUF: in which type the model is before any rung is made of it, and where the file lies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, get_args

from quantizers.protocol import Parameters
from quantpress.errors import QuantpressError, Refused
from quantpress.source.weights import matrix_weights

#: The types that a converted model's matrices have; the names are ggml's and the safetensors format's.
UnquantizedType = Literal["F16", "BF16", "F32"]
#: The recipe's word for: in the type in which the source stores its weights.
AS_STORED = "stored"

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def made_from(config: Parameters) -> str:
    """What every rung of a model is made from, as its recipe says: ``F16`` or :data:`AS_STORED`.

    A config.json that declares float16 is taken at its word: weights in another type, which some finetunes have,
    become float16 as they become for everyone who loads the model, and what float16 cannot hold is refused.
    """
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        if declared := part.get("dtype") or part.get("torch_dtype"):
            return "F16" if str(declared).removeprefix("torch.") == "float16" else AS_STORED
    return AS_STORED


def storage_of(source: Path, recipe_from: str) -> UnquantizedType:
    """The type of the unquantized GGUF's matrices, so that converting loses nothing that quantizing would still see.

    It is the type of most of the matrices' weights, F16 where none is a 16- or 32-bit float (as in the converter's
    own ``--outtype auto``, which asks the first matrix alone). float32 stays float32, where the converter
    would round to float16: such sources are few, and range and digits lost there are lost to every rung.
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
    """Raises :class:`Refused` for a model's name that is no file name."""
    return f"{checked(model_name)}-{storage}.gguf"


def unquantized_file(prepared: Path, model_name: str) -> Path:
    """The unquantized GGUF in the folder that ``prepare`` filled. Raises :class:`QuantpressError` where none is."""
    files = [prepared.resolve() / unquantized_name(model_name, storage) for storage in get_args(UnquantizedType)]
    for file in files:
        if file.exists():
            return file
    raise QuantpressError(f"{prepared} holds no unquantized GGUF of {model_name}: prepare it again")


def checked(model_name: str) -> str:
    """Raises :class:`Refused` for a model's name that is no file name."""
    if not _SAFE_NAME.fullmatch(model_name):
        raise Refused(f"model name {model_name!r} is not a plain file name: use letters, digits, '.', '_' and '-'")
    return model_name
