"""Keeps one collection on the Hub per base model, with the published repositories of all its formats.

A collection is found again by its title. A person may therefore add to it, reorder it and describe it. This module
never removes anything from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantpress.hub.client import explained
from quantpress.record.names import model_name

if TYPE_CHECKING:
    from huggingface_hub import Collection, HfApi

#: The most characters in a collection's title and description on the Hub (150: embeddings-benchmark/mteb#4115).
_LONGEST_TITLE, _LONGEST_DESCRIPTION = 59, 149
#: A listing of collections shows at most this many items of each collection (huggingface_hub's ``list_collections``).
_LISTED_ITEMS = 4


def collection_title(source: str) -> str:
    """Returns the title of a model's collection. The collection is found again by this title."""
    return f"{model_name(source)}, quantized"[:_LONGEST_TITLE]


def keep_collection(api: HfApi, namespace: str, source: str, repo_ids: Sequence[str], private: bool = False) -> None:
    """Makes sure that the collection of ``source`` under ``namespace`` has all of ``repo_ids``. The repos must exist.

    Does nothing if ``repo_ids`` is empty or the Hub has no collections. A collection that has all of them costs one
    request, or two if it has four items or more. Raises :class:`~quantpress.errors.QuantpressError` if the Hub refuses.
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
    """The Hub has nothing at the address of collections."""


def _find(api: HfApi, namespace: str, title: str) -> Collection | None:
    """Returns the collection with this title, with all its items. Looks at the most recently changed ones first."""
    from huggingface_hub.errors import HfHubHTTPError

    listed = api.list_collections(owner=namespace, sort="lastModified")
    try:
        found = next((each for each in listed if each.title == title), None)
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code == 404:
            raise _NoCollections from None
        raise
    return api.get_collection(found.slug) if found and len(found.items) >= _LISTED_ITEMS else found
