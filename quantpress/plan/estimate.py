"""Estimates what making a variant will cost, from sizes and measured speeds.

People read the estimates. The plan also uses them to stay within the upload budget and the disk budget.
"""

from __future__ import annotations

from quantizers import quantizer_of
from quantizers.protocol import Variant
from quantizers.traits import traits_of
from quantpress.record.base import Record
from quantpress.source.config import model_config
from quantpress.source.quantized import quantization_of
from quantpress.source.source import Source

#: Bytes per weight of the dtypes in which models are published.
_DTYPE_BYTES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0, "float8_e4m3fn": 1.0}


class Estimate(Record):
    """What one variant costs.

    ``upload`` is the bytes of the variant's files. ``disk`` is the bytes of the unquantized GGUF. ``memory`` is the
    bytes of the weights in float32. ``core_seconds`` is the time on one CPU core.
    """

    upload: int
    disk: int
    memory: int
    core_seconds: float


def weight_count(source: Source) -> int:
    """Returns the number of weights of the source model: the size of its safetensors files, divided by the bytes of
    one weight."""
    return int(source.weight_bytes / _weight_bytes(source))


def _weight_bytes(source: Source) -> float:
    """Returns the bytes of one weight in the dtype that config.json names, or 2 if it names no known dtype.

    A multimodal model can name its dtype in the text part of config.json. A model in FP8 blocks names the dtype in
    which it computes.
    """
    quantized = quantization_of(source.config)
    if quantized is not None and quantized.is_fp8_blocks:
        return _DTYPE_BYTES["float8_e4m3fn"]
    for part in model_config(source.config).parts:
        if dtype := part.declared_dtype:
            return _DTYPE_BYTES.get(dtype, 2.0)
    return 2.0


def estimate_variant(source: Source, variant: Variant) -> Estimate:
    """Estimates the cost of one variant before it is made."""
    weights = weight_count(source)
    size = int(weights * variant.nominal_bits / 8)
    return Estimate(
        upload=size,
        disk=int(max(2.0, _weight_bytes(source)) * weights),
        memory=4 * weights,
        core_seconds=weights * traits_of(quantizer_of(variant)).core_seconds_per_weight,
    )
