"""Operations that the Hub's owner runs on the server itself, outside the HTTP API."""

from __future__ import annotations

from pathlib import Path

from quantpress.localhub import repos
from quantpress.localhub.database import initialise, writing
from quantpress.localhub.names import check_user
from quantpress.localhub.repos import Gated, RepoType
from quantpress.localhub.storage import ObjectStore

# Clients commit an uploaded object within this time. Until a client commits the object, no tree holds it.
_UNCOMMITTED_SECONDS = 24 * 3600


def set_gated(root: Path, repo_id: str, gated: Gated | None, repo_type: RepoType = "model") -> None:
    """Gates a repo's files, or opens them if ``gated`` is None. Raises HubError if there is no such repo."""
    initialise(root)
    with writing(root) as db:
        repo = repos.get_repo(db, repo_id, repo_type)
        repos.update_repo(db, repo, private=repo.private, gated=gated)


def set_private(root: Path, repo_id: str, private: bool, repo_type: RepoType = "model") -> None:
    """Hides a repo from clients without a token, or shows the repo to them if ``private`` is false.

    Raises HubError if there is no such repo.
    """
    initialise(root)
    with writing(root) as db:
        repo = repos.get_repo(db, repo_id, repo_type)
        repos.update_repo(db, repo, private=private, gated=repo.gated)


def grant_access(root: Path, repo_id: str, user: str, repo_type: RepoType = "model") -> None:
    """Lets a user's tokens read the files of a gated repo. Raises HubError if there is no such repo."""
    initialise(root)
    with writing(root) as db:
        repos.grant(db, repos.get_repo(db, repo_id, repo_type), check_user(user))


def revoke_access(root: Path, repo_id: str, user: str, repo_type: RepoType = "model") -> None:
    """Takes back the access that grant_access gave. Raises HubError if there is no such repo."""
    initialise(root)
    with writing(root) as db:
        repos.revoke(db, repos.get_repo(db, repo_id, repo_type), check_user(user))


def collect_garbage(root: Path) -> int:
    """Deletes the trees that no commit has and the objects that no tree holds. Returns the number of bytes freed.

    Objects younger than a day stay, because a client can still commit them. No commit is made between the moment when
    the unused objects are chosen and the moment when they are gone, because both lie in one transaction. In the
    transaction, the objects are only moved, because deleting a large file takes long. A commit that comes later finds
    its object missing, and is refused (commits.require_stored).
    """
    initialise(root)
    with writing(root) as db:
        db.execute("DELETE FROM trees WHERE id NOT IN (SELECT tree FROM commits)")
    store, garbage = ObjectStore(root), []
    with writing(root) as db:
        used = {row["sha256"] for row in db.execute("SELECT DISTINCT sha256 FROM tree_entries")}
        for path in store.stored():
            if path.name not in used and (discarded := store.discard(path.name, _UNCOMMITTED_SECONDS)):
                garbage.append(discarded)
    for each in garbage:
        each.path.unlink(missing_ok=True)
    return sum(each.size for each in garbage)
