"""Selects the part of this process's environment that other processes may see."""

from __future__ import annotations

import os

#: Names of variables that hold credentials contain one of these parts, or end so.
_MARKS = ("TOKEN", "SECRET", "PASSWORD")
_ENDING = "_KEY"
#: Settings of tokenizers are not tokens in this sense.
_HARMLESS_PREFIX = "TOKENIZERS_"


def without_credentials(keep_prefix: str | None = None) -> dict[str, str]:
    """Returns this process's environment without credentials. Variables that begin with ``keep_prefix`` are kept.

    A token that ``hf auth login`` stored is out of reach too: huggingface_hub finds an empty file instead.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if (keep_prefix and name.startswith(keep_prefix)) or not _is_credential(name)
    }
    return kept | {"HF_TOKEN_PATH": os.devnull}


def _is_credential(name: str) -> bool:
    name = name.upper()
    if name.startswith(_HARMLESS_PREFIX):
        return False
    return name.endswith(_ENDING) or any(mark in name for mark in _MARKS)
