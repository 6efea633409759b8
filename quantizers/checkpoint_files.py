"""The earlier address of :mod:`quantizers.checkpoint.files`: formats of other packages import from here."""

from __future__ import annotations

from quantizers.checkpoint.files import (
    describe,
    make_plain,
    refresh_checkpoint,
    sort_metadata,
    source_config,
    stored_dtype,
)

__all__ = ["describe", "make_plain", "refresh_checkpoint", "sort_metadata", "source_config", "stored_dtype"]
