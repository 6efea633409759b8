"""Holds the Hub's token where no child process finds it.

A process of the same user can read another's environment (``/proc/PID/environ``) and memory (``/proc/PID/mem``). So the
token is taken out of the environment and kept in memory, and the kernel lets no other process of this user look into
this one.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass

#: The variables in which huggingface_hub looks for a token, in its order (utils/_auth.py).
_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_PR_SET_DUMPABLE = 4  # linux/prctl.h
_LIBC = ctypes.CDLL(None)
_LIBC.getenv.restype = ctypes.c_void_p


@dataclass
class _Held:
    token: str | None = None


_HELD = _Held()


def hold_token() -> None:
    """Takes the token out of this process's environment and keeps it for :func:`held_token`. Makes the process one that
    other processes of the same user cannot look into.

    Programs that this process starts from now on do not get the token. A debugger needs root's rights from now on, and
    the kernel writes no core dump.
    """
    _LIBC.prctl(_PR_SET_DUMPABLE, 0)
    found = [token for variable in _VARIABLES if (token := _taken(variable))]
    if found:
        _HELD.token = found[0]


def held_token() -> str | None:
    """Returns the token that :func:`hold_token` took. None means that the Hub client looks for a token by itself."""
    return _HELD.token


def _taken(variable: str) -> str:
    """Removes a variable from the environment and returns its value without surrounding space.

    Overwrites the value, because ``/proc/PID/environ`` shows the memory in which the kernel put the variables when the
    process started.
    """
    place = _LIBC.getenv(variable.encode())
    if place:
        ctypes.memset(place, 0, len(ctypes.string_at(place)))
    return os.environ.pop(variable, "").strip()
