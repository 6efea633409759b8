"""Checks whether this machine can make a variant: whether a needed GPU is there, is new enough and has enough
memory."""

from __future__ import annotations

import re
from functools import cache

from quantizers.protocol import Variant
from quantpress.errors import Refused
from quantpress.machine.gpu import ask_nvidia_smi
from quantpress.settings import Settings
from quantpress.source.source import Source

#: Making and measuring a variant needs this many bytes of GPU memory in addition to the unquantized weights. Measured
#: on an H200 with a Llama model of 1.07 B weights in 16 bits (2.0 GiB): the peak of AWQ was 3.2 GiB, the peak of GPTQ
#: 1.5 GiB. The evaluation also holds the whole model.
_BESIDE_WEIGHTS = 1_300_000_000
_CAPABILITY = re.compile(r"\d+\.\d+")


def require_device(variant: Variant, source: Source, settings: Settings) -> None:
    """Raises :class:`Refused` if this machine cannot make the variant, because a needed GPU is missing, too old or too
    small."""
    device = settings.compute_device()
    if device == "cpu":
        if variant.needs_cuda:
            raise Refused("needs a CUDA runner")
        return
    _require_capability(variant)
    needed, there = source.weight_bytes + _BESIDE_WEIGHTS, largest_gpu()
    if there is not None and needed > there:
        raise Refused(
            f"needs about {needed / 1e9:.1f} GB of GPU memory, and the largest GPU here has {there / 1e9:.1f} GB:"
            " take a runner with a larger one, or set QUANTPRESS_DEVICE=cpu"
        )


def _require_capability(variant: Variant) -> None:
    needed = variant.compute_capability
    said = ask_nvidia_smi("compute_cap") if needed is not None else []
    there = [float(each) for each in said if _CAPABILITY.fullmatch(each)]  # an old driver says [N/A]
    if needed is not None and there and max(there) < needed:
        raise Refused(
            f"needs a GPU of compute capability {needed:g}, and the best here has {max(there):g}: "
            "take a runner with a newer one, or leave the variant out"
        )


@cache
def largest_gpu() -> int | None:
    """Returns the bytes of memory of the largest NVIDIA GPU, or None if nvidia-smi lists no GPU.

    Asks nvidia-smi once per process.
    """
    mebibytes = [int(said) for said in ask_nvidia_smi("memory.total") if said.isdigit()]
    return max(mebibytes) << 20 if mebibytes else None
