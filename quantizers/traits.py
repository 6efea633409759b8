"""What the press (the pipeline) must know about a format, besides how to make the format. Each fact has a default, so a
format does not have to state any fact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from quantizers.protocol import Quantizer
from quantpress.source.quantized import Fp8Source


@dataclass(frozen=True)
class Traits:
    """Facts about a format. A quantizer holds them in its attribute ``traits``.

    ``limits`` maps a variant's name to the largest mean KL divergence, in nats per token, with which the variant is
    published. ``core_seconds_per_weight`` is the time that one CPU core needs to quantize and evaluate one variant,
    divided by the number of weights of the source. The values are measured seconds times 2, because SmolLM2-135M was
    made on 2 cores (docs/benchmarks.md, "Every variant that needs no GPU"). The default suits a quantizer that
    calibrates a little.

    ``toolchain`` is the toolchain that ``quantpress toolchain install`` makes for the format, or None if Python
    packages are enough. If ``is_one_file`` is true, the format's engine loads the variant's first file, and clients
    find this file by the variant's name. Otherwise the engine loads the folder. ``renews_parts`` says whether a variant
    in several files can get new metadata while its weights stay the same. ``fp8_source`` says what the format does with
    a source in FP8 blocks.
    """

    limits: Mapping[str, float] = field(default_factory=dict)
    core_seconds_per_weight: float = 1.8e-6
    toolchain: str | None = None
    is_one_file: bool = False
    renews_parts: bool = True
    fp8_source: Fp8Source = "blocked"

    def model_path(self, folder: Path, files: Sequence[str]) -> Path:
        """Returns the path that the format's engine loads, for a variant whose ``files`` lie in ``folder``."""
        return folder / files[0] if self.is_one_file else folder


def traits_of(chosen: Quantizer) -> Traits:
    """Returns the traits of a quantizer. If the quantizer has no attribute ``traits``, because it is older than the
    attribute, derives the traits from the quantizer's engine."""
    unsaid = Traits(toolchain="llama.cpp", is_one_file=True) if chosen.engine == "llama.cpp" else Traits()
    return cast(Traits, getattr(chosen, "traits", unsaid))
