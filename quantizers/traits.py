"""What the press must know of a format beside making it. Each fact has a default, so that a format may say nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from quantizers.protocol import Quantizer


@dataclass(frozen=True)
class Traits:
    """A quantizer says them as its attribute ``traits``.

    ``limits`` are the largest mean KL divergences with which variants are published, in nats per token, by name.
    ``core_seconds_per_weight`` is the time for quantizing and evaluating one variant, per weight of the source: what
    both took on 2 cores for SmolLM2-135M, times 2 (docs/benchmarks.md, "Every variant that needs no GPU"); the default
    is that of a quantizer that calibrates a little. ``toolchain`` is what ``quantpress toolchain install`` makes for
    it, None where Python packages do. ``is_one_file``: its engine loads the variant's
    first file, which clients find by the variant's name; else the folder. ``renews_parts``: also a variant in several
    files can have new metadata on the same weights.
    """

    limits: Mapping[str, float] = field(default_factory=dict)
    core_seconds_per_weight: float = 1.8e-6
    toolchain: str | None = None
    is_one_file: bool = False
    renews_parts: bool = True

    def model_path(self, folder: Path, files: Sequence[str]) -> Path:
        """What the format's engine loads of a variant whose ``files`` lie in ``folder``."""
        return folder / files[0] if self.is_one_file else folder


def traits_of(chosen: Quantizer) -> Traits:
    """A quantizer's traits. Of one that was written before there were any, its engine says what must be known."""
    unsaid = Traits(toolchain="llama.cpp", is_one_file=True) if chosen.engine == "llama.cpp" else Traits()
    return cast(Traits, getattr(chosen, "traits", unsaid))
