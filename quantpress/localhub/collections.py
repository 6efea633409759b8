"""Collections: ordered lists of models.

A namespace owns each collection, and no two collections of a namespace share a title. If a repo is deleted, it
disappears from all collections. If a repo is moved, the collections keep it under its new id.
"""

from __future__ import annotations

import re
import secrets
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from quantpress.localhub.database import writing
from quantpress.localhub.errors import HubError, bad_request
from quantpress.localhub.names import check_user
from quantpress.localhub.repos import Repo, now

#: The tables of collections. A database of an earlier version lacks only these tables, so prepare() adds them.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS collections (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    title TEXT NOT NULL,
    description TEXT,
    private INTEGER NOT NULL DEFAULT 0,
    updated_at TEXT NOT NULL,
    UNIQUE (owner, title)
);
CREATE TABLE IF NOT EXISTS collection_items (
    id TEXT PRIMARY KEY,
    collection TEXT NOT NULL REFERENCES collections (id) ON DELETE CASCADE,
    repo INTEGER NOT NULL REFERENCES repos (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    note TEXT,
    UNIQUE (collection, repo)
);
"""

#: Longest title and description, in characters, as on huggingface.co.
MAX_TITLE, MAX_DESCRIPTION = 59, 149
_SLUG_ID = re.compile(r"-([0-9a-f]{24})$")


@dataclass(frozen=True)
class Collection:
    id: str
    owner: str
    title: str
    description: str | None
    private: bool
    updated_at: str

    @property
    def slug(self) -> str:
        """The collection's name in addresses: ``owner/title-in-lower-case-ID``."""
        words = re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")
        return f"{self.owner}/{words or 'collection'}-{self.id}"


@dataclass(frozen=True)
class Item:
    id: str
    namespace: str
    name: str
    private: bool
    note: str | None

    @property
    def repo_id(self) -> str:
        return f"{self.namespace}/{self.name}"


def prepare(root: Path) -> None:
    """Makes the tables of collections if they do not exist."""
    with writing(root) as db:
        for statement in _SCHEMA.split(";"):
            db.execute(statement)


def create(db: sqlite3.Connection, owner: str, title: str, *, description: str | None, private: bool) -> Collection:
    """Makes a collection.

    Raises HubError: 400 for a bad owner, title or description, 409 if the owner already has a collection with this
    title. The error 409 holds the slug of that collection.
    """
    check_user(owner)
    _check_texts(title, description)
    row = db.execute("SELECT * FROM collections WHERE owner = ? AND title = ?", (owner, title)).fetchone()
    if row is not None:
        raise HubError(409, f"{owner} has a collection {title!r} already", body={"slug": _collection(row).slug})
    made = Collection(secrets.token_hex(12), owner, title, description, private, now())
    db.execute(
        "INSERT INTO collections VALUES (?, ?, ?, ?, ?, ?)",
        (made.id, owner, title, description, private, made.updated_at),
    )
    return made


def get(db: sqlite3.Connection, owner: str, slug: str) -> Collection:
    """Finds a collection by the id at the end of its slug. The words before the id can come from an earlier title.

    Raises HubError (404) if there is no such collection.
    """
    match = _SLUG_ID.search(slug)
    row = match and db.execute("SELECT * FROM collections WHERE id = ? AND owner = ?", (match[1], owner)).fetchone()
    if not row:
        raise not_found(owner, slug)
    return _collection(row)


def not_found(owner: str, slug: str) -> HubError:
    """Returns the error for a collection that is not there, or that the client may not see."""
    return HubError(404, f"Collection not found: {owner}/{slug}"[:200])


def find(db: sqlite3.Connection, owners: list[str], repo_ids: list[str], *, private: bool) -> list[Collection]:
    """Returns the collections that belong to any of ``owners`` and hold any of ``repo_ids``, last changed first.

    If ``owners`` is empty, every owner counts. If ``repo_ids`` is empty, the items of a collection do not matter.
    Private collections and private items count only if ``private`` is true.
    """
    found = [_collection(row) for row in db.execute("SELECT * FROM collections ORDER BY updated_at DESC, id")]
    return [
        each
        for each in found
        if (private or not each.private)
        and (not owners or each.owner in owners)
        and (not repo_ids or {item.repo_id for item in items(db, each, private=private)} & set(repo_ids))
    ]


def update(db: sqlite3.Connection, of: Collection, *, title: str, description: str | None, private: bool) -> Collection:
    """Changes a collection.

    Raises HubError: 400 for a bad title or description, 409 if the owner has another collection with this title.
    """
    _check_texts(title, description)
    taken = db.execute(
        "SELECT 1 FROM collections WHERE owner = ? AND title = ? AND id <> ?", (of.owner, title, of.id)
    ).fetchone()
    if taken:
        raise HubError(409, f"{of.owner} has a collection {title!r} already")
    changed = Collection(of.id, of.owner, title, description, private, now())
    db.execute(
        "UPDATE collections SET title = ?, description = ?, private = ?, updated_at = ? WHERE id = ?",
        (title, description, private, changed.updated_at, of.id),
    )
    return changed


def delete(db: sqlite3.Connection, of: Collection) -> None:
    db.execute("DELETE FROM collections WHERE id = ?", (of.id,))


def items(db: sqlite3.Connection, of: Collection, *, private: bool) -> list[Item]:
    """Returns the collection's items in their order. Leaves out private repos unless ``private`` is true."""
    rows = db.execute(
        "SELECT i.id, i.note, r.namespace, r.name, r.private FROM collection_items i JOIN repos r ON r.id = i.repo"
        " WHERE i.collection = ? AND (? OR NOT r.private) ORDER BY i.position",
        (of.id, private),
    )
    return [Item(row["id"], row["namespace"], row["name"], bool(row["private"]), row["note"]) for row in rows]


def add_item(db: sqlite3.Connection, to: Collection, repo: Repo, note: str | None) -> Collection:
    """Adds a repo at the end of a collection. Raises HubError (409) if the collection holds the repo already."""
    known = db.execute("SELECT 1 FROM collection_items WHERE collection = ? AND repo = ?", (to.id, repo.id)).fetchone()
    if known:
        raise HubError(409, f"{repo.repo_id} is in the collection already")
    db.execute(
        "INSERT INTO collection_items SELECT ?, ?, ?, coalesce(max(position) + 1, 0), ? FROM collection_items"
        " WHERE collection = ?",
        (secrets.token_hex(12), to.id, repo.id, note, to.id),
    )
    return _touched(db, to)


def change_item(db: sqlite3.Connection, of: Collection, item_id: str, note: str | None, position: int | None) -> None:
    """Changes an item's note, its position or both. A value of None leaves the note or the position unchanged.

    Raises HubError (404) if there is no such item.
    """
    order = [item.id for item in items(db, of, private=True)]
    if item_id not in order:
        raise _no_item(item_id)
    if note is not None:
        db.execute("UPDATE collection_items SET note = ? WHERE id = ?", (note, item_id))
    if position is not None:
        order.remove(item_id)
        order.insert(min(max(0, position), len(order)), item_id)
        db.executemany("UPDATE collection_items SET position = ? WHERE id = ?", list(enumerate(order)))
    _touched(db, of)


def remove_item(db: sqlite3.Connection, of: Collection, item_id: str) -> None:
    """Removes an item. Raises HubError (404) if there is no such item."""
    if not db.execute("DELETE FROM collection_items WHERE collection = ? AND id = ?", (of.id, item_id)).rowcount:
        raise _no_item(item_id)
    _touched(db, of)


def _touched(db: sqlite3.Connection, of: Collection) -> Collection:
    return update(db, of, title=of.title, description=of.description, private=of.private)


def _no_item(item_id: str) -> HubError:
    return HubError(404, f"The collection has no item {item_id[:100]!r}")


def _check_texts(title: str, description: str | None) -> None:
    if not 1 <= len(title) <= MAX_TITLE:
        raise bad_request(f"A collection's title has 1 to {MAX_TITLE} characters")
    if description is not None and len(description) > MAX_DESCRIPTION:
        raise bad_request(f"A collection's description has at most {MAX_DESCRIPTION} characters")


def _collection(row: sqlite3.Row) -> Collection:
    return Collection(
        row["id"], row["owner"], row["title"], row["description"], bool(row["private"]), row["updated_at"]
    )
