"""Reads and writes a repo's history in the database: refs (branches and tags), commits and trees."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from quantpress.localhub import gitobjects
from quantpress.localhub.errors import HubError, bad_request, revision_not_found
from quantpress.localhub.names import check_ref_name, is_commit
from quantpress.localhub.repos import Repo

DEFAULT_BRANCH = "main"


@dataclass(frozen=True)
class TreeEntry:
    """One file of a tree. A tree lists all files of a commit.

    ``size`` is in bytes. ``blob_id`` is git's id of the file. For a file in LFS, ``blob_id`` is the id of its LFS
    pointer.
    """

    path: str
    sha256: str
    size: int
    blob_id: str
    lfs: bool

    @property
    def pointer_size(self) -> int:
        """The size of the LFS pointer in bytes."""
        return len(gitobjects.lfs_pointer(self.sha256, self.size))


@dataclass(frozen=True)
class Commit:
    oid: str
    tree: str
    parent: str | None
    author: str
    title: str
    message: str
    created_at: str


@dataclass(frozen=True)
class Ref:
    kind: str
    name: str
    target: str

    @property
    def full_name(self) -> str:
        return f"refs/{'heads' if self.kind == 'branch' else 'tags'}/{self.name}"


def list_refs(db: sqlite3.Connection, repo: Repo) -> list[Ref]:
    """Returns all branches, then all tags.

    The branches are sorted by name, and so are the tags. In each group, ``main`` comes first.
    """
    rows = db.execute(
        "SELECT kind, name, target FROM refs WHERE repo = ? ORDER BY kind, name != ?, name",
        (repo.id, DEFAULT_BRANCH),
    )
    return [Ref(**row) for row in rows]


def find_ref(db: sqlite3.Connection, repo: Repo, kind: str, name: str) -> Ref | None:
    row = db.execute(
        "SELECT kind, name, target FROM refs WHERE repo = ? AND kind = ? AND name = ?", (repo.id, kind, name)
    ).fetchone()
    return Ref(**row) if row else None


def get_commit(db: sqlite3.Connection, repo: Repo, oid: str) -> Commit | None:
    row = db.execute(
        "SELECT oid, tree, parent, author, title, message, created_at FROM commits WHERE repo = ? AND oid = ?",
        (repo.id, oid),
    ).fetchone()
    return Commit(**row) if row else None


def resolve(db: sqlite3.Connection, repo: Repo, revision: str) -> Commit:
    """Returns the commit that ``revision`` names. A revision is a branch, a tag, a full ref name or a commit id.

    Raises HubError (404, RevisionNotFound) if there is no such commit.
    """
    if is_commit(revision):
        commit = get_commit(db, repo, revision)
        if commit is None:
            raise revision_not_found(revision)
        return commit
    kinds, name = ["branch", "tag"], revision
    if revision.startswith("refs/heads/"):
        kinds, name = ["branch"], revision.removeprefix("refs/heads/")
    elif revision.startswith("refs/tags/"):
        kinds, name = ["tag"], revision.removeprefix("refs/tags/")
    try:
        check_ref_name(name)
    except HubError as error:
        raise revision_not_found(repr(revision[:200])) from error
    for kind in kinds:
        ref = find_ref(db, repo, kind, name)
        commit = get_commit(db, repo, ref.target) if ref else None
        if commit is not None:
            return commit
    raise revision_not_found(revision)


def create_ref(db: sqlite3.Connection, repo: Repo, kind: str, name: str, target: str, *, message: str = "") -> None:
    """Creates a branch or a tag. Raises HubError: 400 for a bad name, 409 if the branch or tag exists."""
    check_ref_name(name)
    if find_ref(db, repo, kind, name) is not None:
        raise HubError(409, f"Reference already exists: {kind} {name} of {repo.repo_id}")
    db.execute(
        "INSERT INTO refs (repo, kind, name, target, message) VALUES (?, ?, ?, ?, ?)",
        (repo.id, kind, name, target, message),
    )


def delete_ref(db: sqlite3.Connection, repo: Repo, kind: str, name: str) -> None:
    """Deletes a branch or a tag. Raises HubError: 400 for the default branch, 404 if there is no such branch or tag."""
    if kind == "branch" and name == DEFAULT_BRANCH:
        raise bad_request(f"The branch '{DEFAULT_BRANCH}' of {repo.repo_id} cannot be deleted")
    cursor = db.execute("DELETE FROM refs WHERE repo = ? AND kind = ? AND name = ?", (repo.id, kind, name))
    if cursor.rowcount == 0:
        raise revision_not_found(name)


def log(db: sqlite3.Connection, repo: Repo, head: str) -> list[Commit]:
    """Returns the commit ``head`` and its ancestors, newest first."""
    rows = db.execute(
        """
        WITH RECURSIVE line (oid, depth) AS (
            SELECT ?, 0
            UNION ALL
            SELECT commits.parent, depth + 1 FROM commits JOIN line ON commits.oid = line.oid
            WHERE commits.repo = ? AND commits.parent IS NOT NULL
        )
        SELECT commits.oid, tree, parent, author, title, message, created_at
        FROM line JOIN commits ON commits.oid = line.oid AND commits.repo = ? ORDER BY depth
        """,
        (head, repo.id, repo.id),
    )
    return [Commit(**row) for row in rows]


def read_tree(db: sqlite3.Connection, tree: str) -> dict[str, TreeEntry]:
    """Returns a dict from the path of each file of a tree to its entry, sorted by path."""
    rows = db.execute("SELECT path, sha256, size, blob_id, lfs FROM tree_entries WHERE tree = ? ORDER BY path", (tree,))
    return {
        row["path"]: TreeEntry(row["path"], row["sha256"], row["size"], row["blob_id"], bool(row["lfs"]))
        for row in rows
    }


def write_tree(db: sqlite3.Connection, entries: Mapping[str, TreeEntry]) -> str:
    """Stores a tree that holds ``entries``. Returns git's id of the tree."""
    tree = gitobjects.tree_ids({path: entry.blob_id for path, entry in entries.items()})[""]
    if db.execute("INSERT OR IGNORE INTO trees VALUES (?)", (tree,)).rowcount:
        db.executemany(
            "INSERT INTO tree_entries VALUES (?, ?, ?, ?, ?, ?)",
            [(tree, e.path, e.sha256, e.size, e.blob_id, e.lfs) for e in entries.values()],
        )
    return tree


def last_commits(db: sqlite3.Connection, repo: Repo, head: Commit, paths: set[str]) -> dict[str, Commit]:
    """Returns a dict from each of ``paths`` to the newest commit that changed the file or folder there.

    Only ``head`` and its ancestors count.
    """
    found: dict[str, Commit] = {}
    open_paths = set(paths)
    commits = log(db, repo, head.oid)
    states = _states(db, commits[0].tree)
    for commit, older in zip(commits, [*commits[1:], None], strict=True):
        if not open_paths:
            break
        older_states = _states(db, older.tree) if older else {}
        for path in [p for p in open_paths if states.get(p) != older_states.get(p)]:
            found[path] = commit
            open_paths.remove(path)
        states = older_states
    return found


def _states(db: sqlite3.Connection, tree: str) -> dict[str, str]:
    """Returns the git id of each file and folder of a tree, as a dict from path to id."""
    blobs = {path: entry.blob_id for path, entry in read_tree(db, tree).items()}
    return {**gitobjects.tree_ids(blobs), **blobs}
