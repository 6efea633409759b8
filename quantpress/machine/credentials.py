"""Selects the environment variables of this process that other processes may see."""

from __future__ import annotations

import os

#: If a variable's name contains one of ``_MARKS`` or ends with ``_ENDING``, the variable holds a credential.
_MARKS = ("TOKEN", "SECRET", "PASSWORD")
_ENDING = "_KEY"
#: Variables with this prefix are settings of the tokenizers library. They hold no credentials.
_HARMLESS_PREFIX = "TOKENIZERS_"


def without_credentials(keep_prefix: str | None = None) -> dict[str, str]:
    """Returns this process's environment without credentials. Keeps all variables whose name begins with
    ``keep_prefix``.

    A process with this environment cannot find a token that ``hf auth login`` stored either, because ``HF_TOKEN_PATH``
    names an empty file.
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
