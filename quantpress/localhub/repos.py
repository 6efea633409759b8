"""Makes, finds, lists, changes, moves and deletes repositories of models and of datasets.

A model and a dataset can have the same id. The database stores a dataset's namespace as ``datasets/<namespace>``, which
cannot be the namespace of a model. Databases from the time before datasets therefore need no migration. Only this
module knows about the prefix ``datasets/``.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, get_args

from quantpress.localhub.errors import HubError, repo_not_found
from quantpress.localhub.names import check_repo_id

Gated = Literal["auto", "manual"]
RepoType = Literal["model", "dataset"]

REPO_TYPES: tuple[RepoType, ...] = get_args(RepoType)
_DATASETS = "datasets/"


@dataclass(frozen=True)
class Repo:
    id: int
    repo_type: RepoType
    namespace: str
    name: str
    private: bool
    gated: Gated | None
    created_at: str

    @property
    def repo_id(self) -> str:
        return f"{self.namespace}/{self.name}"


def now() -> str:
    """Returns the current time in UTC in the Hub's format, such as ``2024-01-31T12:00:00.000Z``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _stored(repo_type: RepoType, namespace: str) -> str:
    """Returns a namespace as the database stores it."""
    return f"{_DATASETS}{namespace}" if repo_type == "dataset" else namespace


def _repo(row: sqlite3.Row) -> Repo:
    stored: str = row["namespace"]
    return Repo(
        row["id"],
        "dataset" if stored.startswith(_DATASETS) else "model",
        stored.removeprefix(_DATASETS),
        row["name"],
        bool(row["private"]),
        row["gated"],
        row["created_at"],
    )


def find_repo(db: sqlite3.Connection, repo_type: RepoType, namespace: str, name: str) -> Repo | None:
    row = db.execute(
        "SELECT * FROM repos WHERE namespace = ? AND name = ?", (_stored(repo_type, namespace), name)
    ).fetchone()
    return _repo(row) if row else None


def get_repo(db: sqlite3.Connection, repo_id: str, repo_type: RepoType = "model") -> Repo:
    """Returns a repo. Raises HubError: 400 for a bad id, 404 (RepoNotFound) if there is no such repo."""
    repo = find_repo(db, repo_type, *check_repo_id(repo_id))
    if repo is None:
        raise repo_not_found(repo_id)
    return repo


def list_repos(db: sqlite3.Connection, repo_type: RepoType) -> list[Repo]:
    """Returns all repos of a type, sorted by namespace and name."""
    found = map(_repo, db.execute("SELECT * FROM repos ORDER BY namespace, name"))
    return [repo for repo in found if repo.repo_type == repo_type]


def create_repo(db: sqlite3.Connection, repo_type: RepoType, repo_id: str, *, private: bool) -> Repo:
    """Makes a repo that has no commit yet. Raises HubError: 400 for a bad id, 409 if the repo exists."""
    namespace, name = check_repo_id(repo_id)
    if find_repo(db, repo_type, namespace, name) is not None:
        raise HubError(409, f"You already created this {repo_type} repo: {repo_id}")
    db.execute(
        "INSERT INTO repos (namespace, name, private, created_at) VALUES (?, ?, ?, ?)",
        (_stored(repo_type, namespace), name, private, now()),
    )
    return get_repo(db, repo_id, repo_type)


def update_repo(db: sqlite3.Connection, repo: Repo, *, private: bool, gated: Gated | None) -> None:
    db.execute("UPDATE repos SET private = ?, gated = ? WHERE id = ?", (private, gated, repo.id))


def move_repo(db: sqlite3.Connection, repo: Repo, new_id: str) -> None:
    """Moves a repo to a new id. Raises HubError: 400 for a bad id, 409 if the new id is taken."""
    namespace, name = check_repo_id(new_id)
    if find_repo(db, repo.repo_type, namespace, name) is not None:
        raise HubError(409, f"Cannot move the {repo.repo_type} {repo.repo_id}: {new_id} exists")
    db.execute(
        "UPDATE repos SET namespace = ?, name = ? WHERE id = ?", (_stored(repo.repo_type, namespace), name, repo.id)
    )


def delete_repo(db: sqlite3.Connection, repo: Repo) -> None:
    """Deletes the repo with all its refs and commits.

    The objects of its files stay in the store until collect_garbage deletes them.
    """
    db.execute("DELETE FROM repos WHERE id = ?", (repo.id,))


def grant(db: sqlite3.Connection, repo: Repo, user: str) -> None:
    """Lets a user read the files of a gated repo."""
    db.execute("INSERT OR IGNORE INTO grants VALUES (?, ?)", (repo.id, user))


def revoke(db: sqlite3.Connection, repo: Repo, user: str) -> None:
    db.execute("DELETE FROM grants WHERE repo = ? AND user = ?", (repo.id, user))


def has_grant(db: sqlite3.Connection, repo: Repo, user: str) -> bool:
    return db.execute("SELECT 1 FROM grants WHERE repo = ? AND user = ?", (repo.id, user)).fetchone() is not None
