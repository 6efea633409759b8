"""The earlier address of :mod:`quantizers.checkpoint.format`: formats of other packages import from here."""

from __future__ import annotations

from quantizers.checkpoint.format import CheckpointFormat, refuse_experts

__all__ = ["CheckpointFormat", "refuse_experts"]
