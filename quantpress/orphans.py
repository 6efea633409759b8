"""What is published and no longer in the catalog. It is listed, never deleted: that is for a person to decide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantizers import quantizer
from quantpress.catalog import Catalog, model_name
from quantpress.errors import Unreadable
from quantpress.hub import explained
from quantpress.plan import Step
from quantpress.published import read_manifest
from quantpress.settings import Settings

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: The tag that every card's front matter carries (``templates/*.md.jinja``).
_TAG = "quantpress"


def find_orphans(catalog: Catalog, settings: Settings, target_hub: HfApi) -> list[Step]:
    """A step for each repo of the namespace that quantpress made and that no line of the catalog stands for, by name.

    One listing, and the manifest of those repos alone. A model that is skipped is still in the catalog. Raises
    :class:`~quantpress.errors.QuantpressError` where the Hub cannot be reached.
    """
    expected = {
        f"{settings.namespace}/{model_name(line.repo)}-{quantizer(format_name).suffix}"
        for line in catalog.models
        for format_name in catalog.formats_of(line)
    }
    with explained(target_hub.endpoint, f"listing the repositories of {settings.namespace}"):
        listed = sorted(model.id for model in target_hub.list_models(author=settings.namespace, filter=_TAG))
    models = {line.repo for line in catalog.models}
    found = [_orphan(target_hub, repo_id, models) for repo_id in listed if repo_id not in expected]
    return [step for step in found if step is not None]


def _orphan(api: HfApi, repo_id: str, models: set[str]) -> Step | None:
    try:
        manifest = read_manifest(api, repo_id, "main", repo_id)
    except Unreadable as error:
        return Step(model="", format="", variant="", repo_id=repo_id, action="orphaned", reason=f"orphaned: {error}")
    if manifest is None:
        return None  # somebody gave the tag to a repo of their own making
    model, format_name = manifest.source.repo, manifest.format
    what = f"{format_name} is no format of {model}" if model in models else f"{model} is not"
    return Step(
        model=model,
        format=format_name,
        variant="",
        repo_id=repo_id,
        action="orphaned",
        reason=f"orphaned: {what} in the catalog any more; {repo_id} stays as it is",
    )
