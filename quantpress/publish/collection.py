"""A collection on the Hub per base model, with the published repositories of all its formats.

A collection is found again by its title, so a person may add to it, reorder and describe it as they like; nothing is
ever taken out of it here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantpress.hub.client import explained
from quantpress.record.names import model_name

if TYPE_CHECKING:
    from huggingface_hub import Collection, HfApi

#: Characters that the Hub takes in a collection's title, and in its description (150: embeddings-benchmark/mteb#4115).
_LONGEST_TITLE, _LONGEST_DESCRIPTION = 59, 149
#: A listing of collections shows no more of each one's items (huggingface_hub's ``list_collections``).
_LISTED_ITEMS = 4


def collection_title(source: str) -> str:
    """The title of the collection of a model, by which it is found again."""
    return f"{model_name(source)}, quantized"[:_LONGEST_TITLE]


def keep_collection(api: HfApi, namespace: str, source: str, repo_ids: Sequence[str], private: bool = False) -> None:
    """Sees to it that the collection of ``source`` under ``namespace`` has all of ``repo_ids``, which exist.

    There is none for no repository, and on a Hub that has no collections. One that has all of them costs one
    request, or two where it has more than four items. Raises :class:`~quantpress.errors.QuantpressError` where the Hub
    refuses.
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
    """The collection of this title, with all its items; those that changed last are looked at first."""
    from huggingface_hub.errors import HfHubHTTPError

    listed = api.list_collections(owner=namespace, sort="lastModified")
    try:
        found = next((each for each in listed if each.title == title), None)
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code == 404:
            raise _NoCollections from None
        raise
    return api.get_collection(found.slug) if found and len(found.items) >= _LISTED_ITEMS else found
