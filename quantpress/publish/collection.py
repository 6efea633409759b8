"""Keeps one collection on the Hub per base model, with the published repositories of all its formats.

This module finds a collection by its title. So a person may add items to the collection, reorder them and describe
them. This module never removes an item.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantpress.hub.client import explained
from quantpress.record.names import model_name

if TYPE_CHECKING:
    from huggingface_hub import Collection, HfApi

#: The most characters that this module uses in a collection's title and in its description. The Hub limits both (the
#: description to 150: embeddings-benchmark/mteb#4115).
_LONGEST_TITLE, _LONGEST_DESCRIPTION = 59, 149
#: A listing of collections shows at most this many items of each collection (huggingface_hub's ``list_collections``).
_LISTED_ITEMS = 4


def collection_title(source: str) -> str:
    """Returns the title of a model's collection. ``source`` is the repo of the unquantized model."""
    return f"{model_name(source)}, quantized"[:_LONGEST_TITLE]


def keep_collection(api: HfApi, namespace: str, source: str, repo_ids: Sequence[str], private: bool = False) -> None:
    """Adds the repos ``repo_ids`` to the collection of ``source`` under ``namespace``. Makes the collection if it is
    missing. The repos must exist.

    Does nothing if ``repo_ids`` is empty or if the Hub has no collections. If the collection already has all the repos,
    the call costs one request, or two if the collection has four items or more. Raises
    :class:`~quantpress.errors.QuantpressError` if the Hub refuses.
    """
    if not repo_ids:
        return
    title = collection_title(source)
    with explained(api.endpoint, f"keeping the collection {title!r} of {namespace}"):
        try:
            found = _find(api, namespace, title) or api.create_collection(
                title,
                namespace=namespace,
                description=f"{source} in several formats, measured"[:_LONGEST_DESCRIPTION],
                private=private,
                exists_ok=True,
            )
        except _NoCollections:
            return
        there = {item.item_id for item in found.items if item.item_type == "model"}
        for repo_id in repo_ids:
            if repo_id not in there:
                api.add_collection_item(found.slug, repo_id, "model", exists_ok=True)


class _NoCollections(Exception):
    """Raised if the Hub has no collections: it answers 404 to the request that lists them."""


def _find(api: HfApi, namespace: str, title: str) -> Collection | None:
    """Returns the collection with this title, with all its items, or None. Looks at the most recently changed
    collections first."""
    from huggingface_hub.errors import HfHubHTTPError

    listed = api.list_collections(owner=namespace, sort="lastModified")
    try:
        found = next((each for each in listed if each.title == title), None)
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code == 404:
            raise _NoCollections from None
        raise
    return api.get_collection(found.slug) if found and len(found.items) >= _LISTED_ITEMS else found
