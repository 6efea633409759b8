"""Formats, registered lazily: importing this package imports no format, no torch and no transformers."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING

from quantpress.errors import BadInput

if TYPE_CHECKING:
    from quantizers.protocol import Quantizer

#: Format to ``module:object``, in the order in which formats are made.
_REGISTRY = {
    "gguf": "quantizers.gguf.quantizer:GGUF",
    "gptq": "quantizers.gptq:GPTQ",
    "awq": "quantizers.awq:AWQ",
    "exl3": "quantizers.exl3:EXL3",
    "exl2": "quantizers.exl2:EXL2",
}


def formats() -> list[str]:
    """The registered format names, in the order in which formats are made."""
    return list(_REGISTRY)


def quantizer(name: str) -> Quantizer:
    """The quantizer of a format. Raises :class:`BadInput` for an unknown name, naming the nearest one."""
    target = _REGISTRY.get(name)
    if target is None:
        nearest = get_close_matches(name, _REGISTRY, n=1, cutoff=0.4)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"use one of {', '.join(_REGISTRY)}"
        raise BadInput(f"unknown format {name!r}: {hint}")
    module, _, attribute = target.partition(":")
    found: Quantizer = getattr(import_module(module), attribute)()
    return found
