"""Finds the engine for a model that lies on this machine's disk."""

from __future__ import annotations

import json
from pathlib import Path

from quantpress.errors import BadInput
from quantpress.record.measurement import Engine

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
        return str(json.loads(config.read_bytes())["quantization_config"]["quant_method"])
    except (ValueError, KeyError, TypeError):
        return ""
