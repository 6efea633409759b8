"""Publishing the comparison of all that is published of a model."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from quantpress.comparison.page import Place, compose_comparison
from quantpress.comparison.report import read_manifests
from quantpress.comparison.state import read_state
from quantpress.errors import Unreadable
from quantpress.publish.commit import ensure_repo, publish, until_first
from quantpress.publish.gated import make_gated_like_source
from quantpress.record.manifest import SourceRecord
from quantpress.record.names import comparison_repo, model_name
from quantpress.record.shelf import read_shelf

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def open_comparison(api: HfApi, namespace: str, source: SourceRecord, private: bool) -> str:
    """Sees to it that the repository of a model's comparison exists, gated as the source is; returns its id.

    Raises :class:`~quantpress.errors.Refused` where there is a repository with weights in its place: a comparison has
    none.
    """
    repo_id = comparison_repo(namespace, model_name(source.repo))
    read_shelf(api, repo_id).require_ours("main")
    ensure_repo(api, repo_id, private)
    make_gated_like_source(api, repo_id, source)
    return repo_id


def make_comparison_gated(api: HfApi, namespace: str, source: SourceRecord) -> None:
    """Gates the published comparison of a model whose source is gated: to be called before another repository says
    that the source is."""
    repo_id = comparison_repo(namespace, model_name(source.repo))
    if _is_published(api, repo_id):
        make_gated_like_source(api, repo_id, source)


def _is_published(api: HfApi, repo_id: str) -> bool:
    try:
        return read_state(api, repo_id) is not None
    except Unreadable:  # ours, of another version
        return True


def publish_comparison(
    api: HfApi, namespace: str, source: SourceRecord, private: bool, collected: Collection[str] = ()
) -> str | None:
    """Compares what is published of a model now; no commit where that says the same as before. Returns the id of the
    repository if there was one.

    ``collected`` are repositories that the model's collection holds, beside those that it was seen to hold before.
    Raises :class:`~quantpress.errors.QuantpressError` where the Hub refuses, or where others commit again and again.
    """
    repo_id = open_comparison(api, namespace, source, private)

    def attempt() -> str | None:
        # Heads before manifests: a comparison that another press commits in between may be made of newer ones.
        heads = ensure_repo(api, repo_id, private)
        manifests = read_manifests(api, namespace, source.repo)
        held = {*collected, *_collected_before(api, repo_id)} & {repo_id, *manifests}
        with tempfile.TemporaryDirectory(prefix="quantpress-comparison-") as folder:
            commit = compose_comparison(manifests, Place(namespace, api.endpoint), Path(folder), held)
            head = publish(api, repo_id, commit, heads, f"Compare what is made of {source.repo}")
        return repo_id if head != heads.get("main") else None

    return until_first(repo_id, attempt)


def _collected_before(api: HfApi, repo_id: str) -> list[str]:
    try:
        state = read_state(api, repo_id)
    except Unreadable:
        return []
    return state.collected if state is not None else []
