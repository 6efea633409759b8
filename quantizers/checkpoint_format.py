"""The earlier address of :mod:`quantizers.checkpoint.format`, from which formats of other packages still import."""

from __future__ import annotations

from quantizers.checkpoint.format import CheckpointFormat, refuse_experts

__all__ = ["CheckpointFormat", "refuse_experts"]
