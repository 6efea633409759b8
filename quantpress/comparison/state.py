"""Records the inputs of a published comparison. This record shows whether the comparison is still up to date."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from quantpress.card.templates import fingerprint
from quantpress.errors import Unreadable
from quantpress.hub.client import explained
from quantpress.record.base import Record
from quantpress.record.manifest import Manifest

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: The file that holds a comparison's state. It is in the comparison's repository.
STATE_FILE = "made_from.json"

COMPARISON_TEMPLATES = ("comparison.md.jinja", "comparison.html.jinja")


class ComparisonState(Record):
    """The state of a comparison: the inputs from which the comparison was made.

    ``model`` is the source's repo. ``manifests`` maps repo id to the manifest's SHA-256. ``templates`` is the SHA-256
    of the templates. ``collected`` lists the repositories that the model's collection on the Hub held when the
    comparison was made. The list can hold the comparison's own repository too.
    """

    model: str
    manifests: dict[str, str]
    templates: str
    collected: list[str]

    def to_json(self) -> str:
        return self.model_dump_json(indent=2) + "\n"


def state_of(manifests: Mapping[str, Manifest], collected: Collection[str] = ()) -> ComparisonState:
    """Returns the state of a comparison that is made now from ``manifests``. There must be at least one manifest."""
    hashes = {repo_id: hashlib.sha256(each.to_json().encode()).hexdigest() for repo_id, each in manifests.items()}
    return ComparisonState(
        model=next(iter(manifests.values())).source.repo,
        manifests=hashes,
        templates=fingerprint(COMPARISON_TEMPLATES),
        collected=sorted(collected),
    )


def read_state(api: HfApi, repo_id: str) -> ComparisonState | None:
    """Returns the state of the comparison in ``repo_id``, or None if there is no comparison.

    Raises :class:`Unreadable` if the state is not of this version, and :class:`~quantpress.errors.QuantpressError` if
    the Hub cannot be reached.
    """
    from huggingface_hub.errors import RemoteEntryNotFoundError, RepositoryNotFoundError

    with explained(api.endpoint, f"reading {repo_id}"):
        try:
            # Ask for the file by commit. If asked by branch, the client can return an older file from its cache.
            head = api.model_info(repo_id).sha
            text = Path(api.hf_hub_download(repo_id, STATE_FILE, revision=head)).read_bytes()
        except (RepositoryNotFoundError, RemoteEntryNotFoundError):
            return None
    try:
        return ComparisonState.model_validate_json(text)
    except ValidationError:
        raise Unreadable(f"{repo_id}: {STATE_FILE} of the comparison is not of this version") from None


def why_outdated(api: HfApi, repo_id: str, manifests: Mapping[str, Manifest]) -> str | None:
    """Says why the comparison in ``repo_id`` must be made again. Returns None if the comparison is up to date, or if
    there are no manifests.

    ``manifests`` maps repo id to the manifest of ``main``. If the comparison has further formats, their manifests are
    not checked. Raises :class:`~quantpress.errors.QuantpressError` if the Hub cannot be reached.
    """
    if not manifests:
        return None
    try:
        published = read_state(api, repo_id)
    except Unreadable as unreadable:
        return str(unreadable)
    if published is None:
        return "its formats are not compared yet"
    now = state_of(manifests)
    if published.templates != now.templates:
        return "the comparison's templates changed"
    if moved := [name for name, found in now.manifests.items() if published.manifests.get(name) != found]:
        return f"its comparison is older than the manifest of {', '.join(moved)}"
    missing = [name for name in (repo_id, *manifests) if name not in published.collected]
    return f"its collection lacks {', '.join(missing)}" if missing else None
