"""The registry of formats. It is lazy: importing this package imports no format, no torch and no transformers.

Other packages add formats with entry points of the group ``quantpress.quantizers`` (:mod:`quantizers.third_party`).
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING

from quantpress.errors import BadInput
from quantpress.hints import hint

if TYPE_CHECKING:
    from quantizers.protocol import Quantizer, Variant

#: Maps a format to ``module:object``. Formats are made in this order.
_REGISTRY = {
    "gguf": "quantizers.gguf.quantizer:GGUF",
    "gptq": "quantizers.gptq:GPTQ",
    "awq": "quantizers.awq:AWQ",
    "exl3": "quantizers.exl.exl3:EXL3",
    "exl2": "quantizers.exl.exl2:EXL2",
    "torchao": "quantizers.torchao:TorchAO",
    "bitsandbytes": "quantizers.bitsandbytes:BitsAndBytes",
    "compressed-tensors": "quantizers.compressed:CompressedTensors",
    "reference": "quantizers.reference:Reference",
}

#: The formats that more than one library can make. Maps a format to its backends (the libraries), and each backend to
#: ``module:object``. The default backend is first.
_BACKENDS = {
    "gptq": {"gptqmodel": "quantizers.gptq:GPTQ", "auto-gptq": "quantizers.gptq.autogptq:AutoGPTQ"},
    "awq": {"gptqmodel": "quantizers.awq:AWQ", "autoawq": "quantizers.awq.autoawq:AutoAWQ"},
}


def formats() -> list[str]:
    """Returns the names of the registered formats, in the order in which formats are made. Formats of other packages
    come last."""
    from quantizers.third_party import entry_points

    return [*_REGISTRY, *(name for name in entry_points() if name not in _REGISTRY)]


def backends(format_name: str) -> list[str]:
    """Returns the libraries that can make a format, the default first. The list is empty if there is no choice."""
    return list(_BACKENDS.get(format_name, ()))


def quantizer(name: str, backend: str | None = None) -> Quantizer:
    """Returns the quantizer of a format. The quantizer uses the given backend (None: the default).

    Raises :class:`BadInput` for an unknown name. The message says which known name is similar, or lists all known
    names. Also raises :class:`BadInput` if another package provides the format and the format cannot be used.
    """
    if backend is not None:
        return _load(_backend_target(name, backend))
    if name in _REGISTRY:
        return _load(_REGISTRY[name])
    from quantizers.third_party import entry_points, load

    if name in entry_points():
        return load(name)
    raise BadInput(f"unknown format {name!r}: {hint(name, formats())}")


def usable() -> dict[str, Quantizer]:
    """Returns a dict from format to quantizer. It holds the formats that can be used.

    If a format of another package cannot be used, logs a warning and leaves this format out. So its fault does not stop
    work on the other formats.
    """
    found: dict[str, Quantizer] = {}
    for name in formats():
        try:
            found[name] = quantizer(name)
        except BadInput as error:
            logging.getLogger(__name__).warning("left out: %s", error)
    return found


def quantizer_of(variant: Variant) -> Quantizer:
    """Returns the quantizer of the variant's format, with the backend that the variant's parameters name."""
    return quantizer(variant.format, variant.parameters.get("backend"))


def mistakes() -> list[str]:
    """Returns messages for the user: one line for each format of another package that is never used."""
    from quantizers import third_party

    return third_party.mistakes(list(_REGISTRY))


def _backend_target(name: str, backend: str) -> str:
    known = _BACKENDS.get(name, {})
    if not known:
        raise BadInput(f"format {name!r} has no backends to choose from: leave out {backend!r}")
    if backend not in known:
        raise BadInput(f"unknown backend {backend!r} of format {name!r}: {hint(backend, known)}")
    return known[backend]


def _load(target: str) -> Quantizer:
    module, _, attribute = target.partition(":")
    found: Quantizer = getattr(import_module(module), attribute)()
    return found
