"""What the operator allows a run to upload, and what the Hub stores already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@dataclass
class UploadBudget:
    """Bytes that one run may upload (None: any number), given out in the plan's order."""

    limit: int | None
    _given: int = 0

    def refusal(self, upload: int) -> str:
        """Takes ``upload`` bytes from the budget; the reason why it does not have them, or nothing."""
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
        """Whether a run that uploads nothing else has ``upload`` bytes."""
        return self.limit is None or upload <= self.limit


def storage_used(api: HfApi, namespace: str) -> int | None:
    """Bytes that the namespace's models take on the Hub, as far as the token may see them; None where the Hub does not
    say."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        sizes = [model.used_storage for model in api.list_models(author=namespace, expand=["usedStorage"])]
    except HfHubHTTPError:
        return None
    return None if None in sizes else sum(size or 0 for size in sizes)
