"""Lists orphaned repos: they are published, but no longer in the catalog. quantpress never deletes them, because only a
person may decide that."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from quantizers import quantizer
from quantpress.catalog.schema import Catalog
from quantpress.comparison.state import read_state
from quantpress.errors import Unreadable
from quantpress.hub.client import explained
from quantpress.plan.blocked import ENDS_THE_PLAN, blocked_step
from quantpress.plan.steps import Step
from quantpress.record.names import comparison_repo, model_name
from quantpress.record.shelf import read_manifest
from quantpress.settings import Settings

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: The front matter of every card has this tag (``templates/*.md.jinja``).
_TAG = "quantpress"


def find_orphans(catalog: Catalog, settings: Settings, target_hub: HfApi) -> list[Step]:
    """Returns a step for each orphaned repo of the namespace, sorted by the repo's name.

    A repo holds one format or a comparison of formats. If quantpress made the repo and no line of the catalog asks for
    it, the repo is orphaned. A line that skips its model still counts. Reads one listing of the namespace. Then reads
    the manifest, or the comparison's state, of each listed repo that the catalog does not ask for. A repo for which
    this fails gets a step that is blocked. Raises
    :class:`~quantpress.errors.QuantpressError` if the Hub cannot be reached.
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
    except ENDS_THE_PLAN:
        raise
    except Exception as error:  # whatever happens to one repository must not hide the others
        return blocked_step("", "", "", repo_id, error)
    if found is None:
        return None  # quantpress did not make this repo; somebody else gave it the tag
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
    """Returns a repo's model and format, or None if quantpress did not make the repo. The format of a comparison is
    ""."""
    manifest = read_manifest(api, repo_id, "main", repo_id)
    if manifest is not None:
        return manifest.source.repo, manifest.format
    state = read_state(api, repo_id)
    return (state.model, "") if state is not None else None
