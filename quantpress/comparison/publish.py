"""Publishes the comparison of a model's formats."""

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
    """Creates the repository of a model's comparison if it is missing. Returns the repository's id.

    If the source is gated (the Hub gives its files only to users who accepted its terms), gates the repository too.
    Raises :class:`~quantpress.errors.Refused` if a repository with weights has this name, because a comparison holds
    no weights.
    """
    repo_id = comparison_repo(namespace, model_name(source.repo))
    read_shelf(api, repo_id).require_ours("main")
    ensure_repo(api, repo_id, private)
    make_gated_like_source(api, repo_id, source)
    return repo_id


def make_comparison_gated(api: HfApi, namespace: str, source: SourceRecord) -> None:
    """If a model's source is gated and its comparison is published, gates the comparison. Call this function before a
    commit to another repository records that the source is gated."""
    repo_id = comparison_repo(namespace, model_name(source.repo))
    if _is_published(api, repo_id):
        make_gated_like_source(api, repo_id, source)


def _is_published(api: HfApi, repo_id: str) -> bool:
    try:
        return read_state(api, repo_id) is not None
    except Unreadable:  # a comparison is there, but its state is of another version
        return True


def publish_comparison(
    api: HfApi, namespace: str, source: SourceRecord, private: bool, collected: Collection[str] = ()
) -> str | None:
    """Compares the published formats of a model, and commits the comparison if it changed. Returns the repository's id
    if there was a commit, else None.

    ``collected`` are repositories that the model's collection on the Hub holds, in addition to those that the last
    comparison recorded. Raises :class:`~quantpress.errors.QuantpressError` if the Hub refuses, or if at every attempt
    another commit comes first.
    """
    repo_id = open_comparison(api, namespace, source, private)

    def attempt() -> str | None:
        # Read the heads before the manifests. In between, another press can commit a comparison of newer manifests.
        # Our commit then has an old head as its parent, so the Hub refuses our commit.
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
