"""Describes a repo at one commit, for the API and for the pages."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from quantpress.localhub import modelcard
from quantpress.localhub.errors import HubError
from quantpress.localhub.history import DEFAULT_BRANCH, Commit, TreeEntry, read_tree, resolve
from quantpress.localhub.repos import Repo, RepoType, list_repos
from quantpress.localhub.storage import ObjectStore

CARD_PATH = "README.md"


@dataclass(frozen=True)
class Description:
    """A repo at one commit. ``files`` maps paths to tree entries, and ``data`` is the metadata of README.md."""

    repo: Repo
    commit: Commit
    files: Mapping[str, TreeEntry]
    data: Mapping[str, Any]

    @property
    def tags(self) -> list[str]:
        if self.repo.repo_type == "dataset":
            return modelcard.dataset_tags(self.data)
        return modelcard.tags(self.data, self.files)

    @property
    def size(self) -> int:
        """The size of all files in bytes."""
        return sum(entry.size for entry in self.files.values())

    def _word(self, key: str) -> str | None:
        value = self.data.get(key)
        return value if isinstance(value, str) else None

    @property
    def library(self) -> str | None:
        return self._word("library_name")

    @property
    def task(self) -> str | None:
        return self._word("pipeline_tag")


def describe(db: sqlite3.Connection, store: ObjectStore, repo: Repo, commit: Commit) -> Description:
    files = read_tree(db, commit.tree)
    entry = files.get(CARD_PATH)
    data: Mapping[str, Any] = {}
    if entry is not None and entry.size <= modelcard.MAX_CARD_BYTES:
        # A card whose object is lost or unreadable costs the card, and neither the repo nor the listing it is in.
        with suppress(OSError):
            data = _card_data(store.path(entry.sha256))
    return Description(repo, commit, files, data)


def describe_all(
    db: sqlite3.Connection, store: ObjectStore, repo_type: RepoType, *, private: bool
) -> Iterator[Description]:
    """Describes each repo of a type at the head of its ``main``. Leaves out private repos unless ``private`` is true.

    A repo whose ``main`` cannot be resolved is left out too, because one repo must not cost the whole listing.
    """
    for repo in list_repos(db, repo_type):
        if repo.private and not private:
            continue
        try:
            commit = resolve(db, repo, DEFAULT_BRANCH)
        except HubError:
            continue
        yield describe(db, store, repo, commit)


@lru_cache(maxsize=1024)  # an object never changes, and a list of models needs the card of each model
def _card_data(path: Path) -> Mapping[str, Any]:
    return modelcard.read_card(path.read_bytes()).data or {}


def _sibling(entry: TreeEntry, with_sizes: bool) -> dict[str, Any]:
    if not with_sizes:
        return {"rfilename": entry.path}
    sibling: dict[str, Any] = {"rfilename": entry.path, "size": entry.size, "blobId": entry.blob_id}
    if entry.lfs:
        sibling["lfs"] = {"sha256": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}
    return sibling


def repo_json(description: Description, *, with_sizes: bool) -> dict[str, Any]:
    """Returns the API's answer for a repo (``/api/models/…`` and ``/api/datasets/…``).

    If ``with_sizes`` is true, the answer holds the size and the id of each file. huggingface_hub asks for these if its
    caller sets ``files_metadata``.
    """
    repo, commit = description.repo, description.commit
    info = {
        "_id": f"{repo.id:024x}",
        "id": repo.repo_id,
        "author": repo.namespace,
        "sha": commit.oid,
        "lastModified": commit.created_at,
        "createdAt": repo.created_at,
        "private": repo.private,
        "gated": repo.gated or False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": description.tags,
        "cardData": description.data,
        "siblings": [_sibling(entry, with_sizes) for entry in description.files.values()],
        "usedStorage": description.size,
    }
    if repo.repo_type == "dataset":
        return info
    return info | {
        "modelId": repo.repo_id,
        "pipeline_tag": description.task,
        "library_name": description.library,
        "spaces": [],
    }
