"""The earlier address of :mod:`quantizers.checkpoint.files`, from which formats of other packages still import."""

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
