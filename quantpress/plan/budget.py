"""Counts the bytes that a run may upload, and the bytes that the Hub already stores for a namespace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantpress.errors import QuantpressError
from quantpress.hub.client import explained

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@dataclass
class UploadBudget:
    """The upload budget of one run. ``limit`` is the bytes that the run may upload (None: no limit).

    Variants take their bytes from the budget in the plan's order.
    """

    limit: int | None
    _given: int = 0

    def refusal(self, upload: int) -> str:
        """Takes ``upload`` bytes from the budget and returns "". If too few bytes are left, takes none and returns the
        reason why the upload must wait."""
        if self.limit is None or self._given + upload <= self.limit:
            self._given += upload
            return ""
        over = self._given + upload - self.limit
        remedy = "left to a later run, or raise" if self.is_large_enough(upload) else "no run can upload it: raise"
        return (
            f"about {over / 1e9:.2f} GB more than the upload budget of {self.limit / 1e9:.2f} GB a run: "
            f"{remedy} QUANTPRESS_UPLOAD_BUDGET"
        )

    def is_large_enough(self, upload: int) -> bool:
        """Whether a run that uploads nothing else could upload ``upload`` bytes."""
        return self.limit is None or upload <= self.limit


def storage_used(api: HfApi, namespace: str) -> int | None:
    """Returns the bytes that the namespace's models take on the Hub, or None if the Hub does not tell.

    Counts only the models that the token gives access to.
    """
    try:
        with explained(api.endpoint, f"listing {namespace}"):
            sizes = [model.used_storage for model in api.list_models(author=namespace, expand=["usedStorage"])]
    except QuantpressError:
        return None
    return None if None in sizes else sum(size or 0 for size in sizes)
