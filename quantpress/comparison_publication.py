"""Publishing the comparison of all that is published of a model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from quantpress.catalog import model_name
from quantpress.comparison_page import Place, compose_comparison
from quantpress.comparison_report import read_manifests
from quantpress.comparison_state import comparison_repo
from quantpress.errors import QuantpressError
from quantpress.gating import gate_like_source
from quantpress.manifest import SourceRecord
from quantpress.publish import Outrun, ensure_repo, publish
from quantpress.published import read_published

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: Times that a comparison is composed anew because another press committed one in between.
_ATTEMPTS = 10


def open_comparison(api: HfApi, namespace: str, source: SourceRecord, private: bool) -> str:
    """Sees to it that the repository of a model's comparison exists, gated as the source is; returns its id.

    Raises :class:`~quantpress.errors.Refused` where there is a repository with weights in its place: a comparison has
    none.
    """
    repo_id = comparison_repo(namespace, model_name(source.repo))
    read_published(api, repo_id).require_ours("main")
    ensure_repo(api, repo_id, private)
    gate_like_source(api, repo_id, source)
    return repo_id


def publish_comparison(api: HfApi, namespace: str, source: SourceRecord, private: bool) -> None:
    """Compares what is published of a model now; no commit where that says the same as before.

    Raises :class:`~quantpress.errors.QuantpressError` where the Hub refuses, or where others commit again and again.
    """
    repo_id = open_comparison(api, namespace, source, private)
    for _ in range(_ATTEMPTS):
        # Heads before manifests: a comparison that another press commits in between may be made of newer ones.
        heads = ensure_repo(api, repo_id, private)
        manifests = read_manifests(api, namespace, source.repo)
        with tempfile.TemporaryDirectory(prefix="quantpress-comparison-") as folder:
            revision = compose_comparison(manifests, Place(namespace, api.endpoint), Path(folder))
            try:
                publish(api, repo_id, revision, heads, f"Compare what is made of {source.repo}")
            except Outrun:
                continue
        return
    raise QuantpressError(f"{repo_id}: other commits came first {_ATTEMPTS} times")
