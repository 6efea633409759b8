"""What of this process's environment other processes may see."""

from __future__ import annotations

import os

#: Parts of the names of variables that hold credentials, and how such names end.
_MARKS = ("TOKEN", "SECRET", "PASSWORD")
_ENDING = "_KEY"
#: Settings of tokenizers, which are no tokens in this sense.
_HARMLESS_PREFIX = "TOKENIZERS_"


def without_credentials(keep_prefix: str | None = None) -> dict[str, str]:
    """This process's environment without credentials, but for variables that begin with ``keep_prefix``.

    A token that ``hf auth login`` stored is out of reach, too: huggingface_hub finds an empty file in its place.
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
