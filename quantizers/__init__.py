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

#: Format to ``module:object``, in the order in which formats are made.
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

#: Formats that more than one library can make: backend to ``module:object``, the default first.
_BACKENDS = {
    "gptq": {"gptqmodel": "quantizers.gptq:GPTQ", "auto-gptq": "quantizers.gptq.autogptq:AutoGPTQ"},
    "awq": {"gptqmodel": "quantizers.awq:AWQ", "autoawq": "quantizers.awq.autoawq:AutoAWQ"},
}


def formats() -> list[str]:
    """The registered format names, in the order in which formats are made. Formats of other packages come last."""
    from quantizers.third_party import entry_points

    return [*_REGISTRY, *(name for name in entry_points() if name not in _REGISTRY)]


def backends(format_name: str) -> list[str]:
    """The libraries that can make a format, the default first. Empty if there is no choice."""
    return list(_BACKENDS.get(format_name, ()))


def quantizer(name: str, backend: str | None = None) -> Quantizer:
    """The quantizer of a format, with one of its backends (None: the default).

    Raises :class:`BadInput` for an unknown name; the message names the nearest one. Also raises it for a format of
    another package that cannot be used.
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
    """The quantizers of all formats. A format of another package that cannot be used is left out, with a warning. So
    its fault does not stop work on the other formats."""
    found: dict[str, Quantizer] = {}
    for name in formats():
        try:
            found[name] = quantizer(name)
        except BadInput as error:
            logging.getLogger(__name__).warning("left out: %s", error)
    return found


def quantizer_of(variant: Variant) -> Quantizer:
    """The quantizer that makes a variant: the quantizer of its format, with the backend that its parameters name."""
    return quantizer(variant.format, variant.parameters.get("backend"))


def mistakes() -> list[str]:
    """A line for the user about each format of another package that is never used."""
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
