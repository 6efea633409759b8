"""Provides the unquantized model of a source that is published in FP8 blocks. It is dequantized once, for all formats
that cannot read FP8 and for the yardstick."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantizers.protocol import Quantizer
from quantizers.traits import traits_of
from quantpress.machine.child import finished, run_child
from quantpress.machine.watch import Limits
from quantpress.record.manifest import SOURCE_WEIGHTS
from quantpress.source.dequantize import Dequantized, DequantizeJob
from quantpress.source.quantized import quantization_of

#: The limits of a child where the caller has no estimate.
_LIMITS = Limits()


def plain_source(source: Path, config: Mapping[str, Any], work: Path) -> Path:
    """Returns the folder of the unquantized model: ``source``, or if it is quantized, a folder in ``work`` that
    :func:`dequantize` fills. ``config`` is the source's config.json."""
    return source if quantization_of(config) is None else work / "bfloat16"


def source_for(chosen: Quantizer, source: Path, config: Mapping[str, Any], work: Path) -> Path:
    """Returns the folder that a format is made from. If the format reads FP8 by itself, this is ``source``."""
    return source if traits_of(chosen).fp8_source == "read" else plain_source(source, config, work)


def dequantize(source: Path, config: Mapping[str, Any], work: Path, limits: Limits = _LIMITS) -> Path:
    """Returns the folder of :func:`plain_source`, filled. If the source is quantized, a child process with these limits
    dequantizes it, unless an earlier run did. Raises :class:`~quantpress.errors.ChildFailed` if the source cannot be
    dequantized."""
    plain = plain_source(source, config, work)
    job = DequantizeJob(source=source.resolve(), out=plain.resolve())
    if plain != source and finished(job, Dequantized, work / "dequantize") is None:
        run_child("quantpress.source.dequantize", job, Dequantized, work / "dequantize", limits)
    return plain


def provide(chosen: Quantizer, source: Path, config: Mapping[str, Any], work: Path) -> Path:
    """Returns the folder of :func:`source_for`, filled. Raises the same error as :func:`dequantize`."""
    found = source_for(chosen, source, config, work)
    return source if found == source else dequantize(source, config, work)


def origin(config: Mapping[str, Any]) -> dict[str, str]:
    """Returns the detail of an artifact that says how the source's weights were stored. The dict is empty if they were
    not quantized."""
    found = quantization_of(config)
    return {SOURCE_WEIGHTS: f"weights in {found.in_words}, dequantized to bfloat16"} if found else {}
