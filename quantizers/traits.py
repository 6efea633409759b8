"""What the press must know about a format, apart from how to make it. Each fact has a default, so a format need not
state any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from quantizers.protocol import Quantizer


@dataclass(frozen=True)
class Traits:
    """Facts about a format. A quantizer holds them in its attribute ``traits``.

    ``limits`` gives, by variant name, the largest mean KL divergence with which a variant is published, in nats per
    token. ``core_seconds_per_weight`` is the time to quantize and evaluate one variant, per weight of the source: the
    time that both took on 2 cores for SmolLM2-135M, times 2 (docs/benchmarks.md, "Every variant that needs no GPU").
    The default is that of a quantizer that calibrates a little. ``toolchain`` is the toolchain that
    ``quantpress toolchain install`` makes for the format, or None if Python packages are enough. ``is_one_file`` says
    that the format's engine loads the variant's first file, which clients find by the variant's name; otherwise the
    engine loads the folder. ``renews_parts`` says that a variant in several files can also get new metadata on the
    same weights.
    """

    limits: Mapping[str, float] = field(default_factory=dict)
    core_seconds_per_weight: float = 1.8e-6
    toolchain: str | None = None
    is_one_file: bool = False
    renews_parts: bool = True

    def model_path(self, folder: Path, files: Sequence[str]) -> Path:
        """The path that the format's engine loads, for a variant whose ``files`` lie in ``folder``."""
        return folder / files[0] if self.is_one_file else folder


def traits_of(chosen: Quantizer) -> Traits:
    """A quantizer's traits. For a quantizer that predates ``traits`` they are derived from its engine."""
    unsaid = Traits(toolchain="llama.cpp", is_one_file=True) if chosen.engine == "llama.cpp" else Traits()
    return cast(Traits, getattr(chosen, "traits", unsaid))
