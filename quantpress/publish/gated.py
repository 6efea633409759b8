"""Gates repositories. The Hub gives the files of a gated repository only to users who accepted its terms.

If the source is gated, quantpress gates the repo that is made from it, and uses the same words for the terms
(https://huggingface.co/docs/hub/models-gated).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantpress.hub.client import explained
from quantpress.record.manifest import SourceRecord

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def make_gated_like_source(api: HfApi, repo_id: str, source: SourceRecord) -> None:
    """If the source is gated, gates the repo in the same way. If the source is open, the repo stays as its owner set
    it.

    Call this function before any commit that records that the source is gated. Raises
    :class:`~quantpress.errors.QuantpressError` if the Hub refuses.
    """
    if source.gated is None:
        return
    with explained(api.endpoint, f"gating {repo_id}"):
        if api.model_info(repo_id).gated != source.gated:
            api.update_repo_settings(repo_id, gated=source.gated)
