"""What is published and no longer in the catalog. It is listed, never deleted: that is for a person to decide."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from quantizers import quantizer
from quantpress.catalog.schema import Catalog
from quantpress.comparison.state import read_state
from quantpress.errors import Unreadable
from quantpress.hub.client import explained
from quantpress.plan.steps import Step
from quantpress.record.names import comparison_repo, model_name
from quantpress.record.shelf import read_manifest
from quantpress.settings import Settings

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: The tag that every card's front matter carries (``templates/*.md.jinja``).
_TAG = "quantpress"


def find_orphans(catalog: Catalog, settings: Settings, target_hub: HfApi) -> list[Step]:
    """A step for each repo of the namespace that quantpress made and that no line of the catalog stands for, by name:
    formats, and comparisons of them.

    One listing, and the manifest (or the state) of those repos alone. A model that is skipped is still in the catalog.
    Raises :class:`~quantpress.errors.QuantpressError` where the Hub cannot be reached.
    """
    names = {line.repo: model_name(line.repo) for line in catalog.models}
    expected = {
        f"{settings.namespace}/{names[line.repo]}-{quantizer(format_name).suffix}"
        for line in catalog.models
        for format_name in catalog.formats_of(line)
    } | {comparison_repo(settings.namespace, name) for name in names.values()}
    with explained(target_hub.endpoint, f"listing the repositories of {settings.namespace}"):
        listed = sorted(model.id for model in target_hub.list_models(author=settings.namespace, filter=_TAG))
    found = [_orphan(target_hub, repo_id, names.keys()) for repo_id in listed if repo_id not in expected]
    return [step for step in found if step is not None]


def _orphan(api: HfApi, repo_id: str, models: Collection[str]) -> Step | None:
    try:
        found = _made_of(api, repo_id)
    except Unreadable as error:
        return Step(model="", format="", variant="", repo_id=repo_id, action="orphaned", reason=f"orphaned: {error}")
    if found is None:
        return None  # somebody gave the tag to a repo of their own making
    model, format_name = found
    what = f"{format_name} is no format of {model}" if model in models else f"{model} is not"
    return Step(
        model=model,
        format=format_name,
        variant="",
        repo_id=repo_id,
        action="orphaned",
        reason=f"orphaned: {what} in the catalog any more; {repo_id} stays as it is",
    )


def _made_of(api: HfApi, repo_id: str) -> tuple[str, str] | None:
    """The model and the format of a repo that quantpress made; a comparison is of no format."""
    manifest = read_manifest(api, repo_id, "main", repo_id)
    if manifest is not None:
        return manifest.source.repo, manifest.format
    state = read_state(api, repo_id)
    return (state.model, "") if state is not None else None
