"""What a published comparison was made from, and so whether it still says what the manifests say."""

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

#: The file beside a comparison that holds its state.
STATE_FILE = "made_from.json"

COMPARISON_TEMPLATES = ("comparison.md.jinja", "comparison.html.jinja")


class ComparisonState(Record):
    """The model that is compared (the source's repo), the SHA-256 of each manifest by repo id, and of the templates;
    and which of the repositories, its own among them, the model's collection was seen to hold."""

    model: str
    manifests: dict[str, str]
    templates: str
    collected: list[str]

    def to_json(self) -> str:
        return self.model_dump_json(indent=2) + "\n"


def state_of(manifests: Mapping[str, Manifest], collected: Collection[str] = ()) -> ComparisonState:
    """The state of a comparison that is made of these manifests now, of which there is one at least."""
    hashes = {repo_id: hashlib.sha256(each.to_json().encode()).hexdigest() for repo_id, each in manifests.items()}
    return ComparisonState(
        model=next(iter(manifests.values())).source.repo,
        manifests=hashes,
        templates=fingerprint(COMPARISON_TEMPLATES),
        collected=sorted(collected),
    )


def read_state(api: HfApi, repo_id: str) -> ComparisonState | None:
    """The state of the comparison in ``repo_id``, if there is one.

    Raises :class:`Unreadable` where it is none of this version, and :class:`~quantpress.errors.QuantpressError` where
    the Hub cannot be reached.
    """
    from huggingface_hub.errors import RemoteEntryNotFoundError, RepositoryNotFoundError

    with explained(api.endpoint, f"reading {repo_id}"):
        try:
            # By its commit: for a branch the client may give what it had before.
            head = api.model_info(repo_id).sha
            text = Path(api.hf_hub_download(repo_id, STATE_FILE, revision=head)).read_bytes()
        except (RepositoryNotFoundError, RemoteEntryNotFoundError):
            return None
    try:
        return ComparisonState.model_validate_json(text)
    except ValidationError:
        raise Unreadable(f"{repo_id}: {STATE_FILE} of the comparison is not of this version") from None


def why_outdated(api: HfApi, repo_id: str, manifests: Mapping[str, Manifest]) -> str | None:
    """Why the comparison in ``repo_id`` is to be made anew; None where it need not be.

    ``manifests`` are those of ``main`` by repo id. Others that it compares, of formats that nobody asks about, are not
    looked at. Raises :class:`~quantpress.errors.QuantpressError` where the Hub cannot be reached.
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
