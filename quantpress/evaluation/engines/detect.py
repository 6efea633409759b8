"""Finds the engine for a model that lies on this machine's disk."""

from __future__ import annotations

from pathlib import Path

from quantpress.errors import BadInput, Refused
from quantpress.foreign_json import read_object
from quantpress.record.measurement import Engine
from quantpress.source.config import model_config

#: A dict from the ``quant_method`` in config.json to the engine that loads the checkpoint. Transformers loads all
#: checkpoints with other methods.
_ENGINES: dict[str, Engine] = {"exl3": "exllamav3", "exl2": "exllamav2"}


def engine_for(path: Path) -> Engine:
    """Returns the engine that loads ``path``, which is a GGUF file or a checkpoint folder.

    Raises :class:`BadInput` if ``path`` is anything else.
    """
    if path.is_file() and path.suffix == ".gguf":
        return "llama.cpp"
    if (path / "config.json").is_file():
        return _ENGINES.get(_quant_method(path / "config.json"), "transformers")
    raise BadInput(f"{path}: neither a .gguf file nor a folder with a config.json")


def _quant_method(config: Path) -> str:
    try:
        quantization = model_config(read_object(config)).quantization_config
    except Refused:
        return ""  # the engine says better what is wrong with the file
    return (quantization and quantization.quant_method) or ""
