"""Gated repositories: whose files the Hub gives to those only who accepted its terms.

What is made from a gated model is gated too, with the same words (https://huggingface.co/docs/hub/models-gated).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantpress.hub.client import explained
from quantpress.record.manifest import SourceRecord

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def make_gated_like_source(api: HfApi, repo_id: str, source: SourceRecord) -> None:
    """Gates a repo whose source is gated, and in the same way; to be called before any commit that says so.

    A repo whose source is open stays as its owner set it. Raises :class:`~quantpress.errors.QuantpressError` where
    the Hub refuses.
    """
    if source.gated is None:
        return
    with explained(api.endpoint, f"gating {repo_id}"):
        if api.model_info(repo_id).gated != source.gated:
            api.update_repo_settings(repo_id, gated=source.gated)
