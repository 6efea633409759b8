"""Gated repositories: the Hub gives their files only to users who accepted their terms.

A repo made from a gated model is gated too, with the same words (https://huggingface.co/docs/hub/models-gated).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantpress.hub.client import explained
from quantpress.record.manifest import SourceRecord

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def make_gated_like_source(api: HfApi, repo_id: str, source: SourceRecord) -> None:
    """Gates a repo like its source, if the source is gated. Call it before any commit that says so.

    If the source is open, the repo stays as its owner set it. Raises :class:`~quantpress.errors.QuantpressError` if the
    Hub refuses.
    """
    if source.gated is None:
        return
    with explained(api.endpoint, f"gating {repo_id}"):
        if api.model_info(repo_id).gated != source.gated:
            api.update_repo_settings(repo_id, gated=source.gated)
