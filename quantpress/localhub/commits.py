"""Makes commits: applies operations (add, delete, copy) to the tree of a branch, all in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from quantpress.localhub import gitobjects
from quantpress.localhub.errors import HubError, bad_request, entry_not_found, revision_not_found
from quantpress.localhub.history import (
    DEFAULT_BRANCH,
    Commit,
    TreeEntry,
    create_ref,
    find_ref,
    get_commit,
    read_tree,
    resolve,
    write_tree,
)
from quantpress.localhub.names import check_path
from quantpress.localhub.repos import Repo, RepoType, create_repo, now
from quantpress.localhub.storage import ObjectStore


@dataclass(frozen=True)
class Add:
    """Adds a file, or replaces the file that is at the same path.

    The object of the added file must already be stored.
    """

    entry: TreeEntry


@dataclass(frozen=True)
class DeleteFile:
    path: str


@dataclass(frozen=True)
class DeleteFolder:
    path: str


@dataclass(frozen=True)
class Copy:
    """Copies a file.

    The source lies in the tree of ``source_revision``. If ``source_revision`` is None, the source lies in the tree of
    the branch's head.
    """

    source_path: str
    path: str
    source_revision: str | None = None


Operation = Add | DeleteFile | DeleteFolder | Copy


@dataclass(frozen=True)
class CommitRequest:
    """The change that a client wants on a branch.

    ``parent`` is the commit that the client believes to be the head of the branch. None means that any head will do.
    """

    branch: str
    title: str
    message: str
    author: str
    operations: Sequence[Operation]
    parent: str | None = None


def regular_entry(store: ObjectStore, path: str, content: bytes) -> TreeEntry:
    """Stores the content of a small file. Returns the file's entry for a tree."""
    check_path(path)
    return TreeEntry(path, store.add(content), len(content), gitobjects.blob_id(content), lfs=False)


def lfs_entry(store: ObjectStore, path: str, sha256: str, size: int | None) -> TreeEntry:
    """Returns the entry for a tree of a large file, which a client uploaded before.

    Raises HubError (400) if the object is missing, or if ``size`` (bytes) is given and differs from the object's size.
    """
    check_path(path)
    stored = store.size(sha256)
    if stored is None or (size is not None and size != stored) or not store.keep(sha256, stored):
        raise bad_request(f"The LFS object of {path} is not uploaded: {sha256}; upload it, then commit")
    return TreeEntry(path, sha256, stored, gitobjects.blob_id(gitobjects.lfs_pointer(sha256, stored)), lfs=True)


def require_stored(store: ObjectStore, operations: Sequence[Operation]) -> None:
    """Raises HubError (503) if the object of an added file is gone, although it was there when the request came.

    Call this function in the transaction of the commit, because then collect_garbage cannot take an object afterwards.
    """
    for operation in operations:
        if isinstance(operation, Add) and store.size(operation.entry.sha256) != operation.entry.size:
            raise HubError(
                503, f"The object of {operation.entry.path} has just been removed: upload it and commit again"
            )


def _apply(
    db: sqlite3.Connection, repo: Repo, tree: Mapping[str, TreeEntry], operations: Sequence[Operation]
) -> dict[str, TreeEntry]:
    result = dict(tree)
    for operation in operations:
        match operation:
            case Add(entry):
                result[entry.path] = entry
            case DeleteFile(path):
                if path not in result:
                    raise entry_not_found(f"A file with this name doesn't exist: {path[:200]!r}")
                del result[path]
            case DeleteFolder(path):
                inside = [p for p in result if p.startswith(f"{path}/")]
                if not inside:
                    raise entry_not_found(f"A folder with this name doesn't exist: {path[:200]!r}")
                for p in inside:
                    del result[p]
            case Copy(source_path, path, source_revision):
                source = (read_tree(db, resolve(db, repo, source_revision).tree) if source_revision else tree).get(
                    source_path
                )
                if source is None:
                    raise entry_not_found(f"Cannot copy: no file {source_path[:200]!r}")
                result[check_path(path)] = replace(source, path=path)
    _refuse_file_and_folder(result)
    return result


def _refuse_file_and_folder(tree: Mapping[str, TreeEntry]) -> None:
    """Raises HubError (400) if a path is a file and a folder at once.

    The tree is refused because nobody could check it out.
    """
    for path in tree:
        parent = path.rpartition("/")[0]
        while parent:
            if parent in tree:
                raise bad_request(f"{parent[:200]!r} cannot be a file and a folder")
            parent = parent.rpartition("/")[0]


def commit(db: sqlite3.Connection, repo: Repo, request: CommitRequest) -> Commit:
    """Applies a request to a branch, inside the caller's transaction. Returns the branch's new head.

    If the request does not change the tree, no commit is made and the head stays.

    Raises HubError: 400 if the request names a tag or a commit instead of a branch, or if a path would be a file and a
    folder; 404 for an unknown branch, file or parent; 412 if ``parent`` is no longer the head.
    """
    ref = find_ref(db, repo, "branch", request.branch.removeprefix("refs/heads/"))
    head = get_commit(db, repo, ref.target) if ref else None
    if ref is None or head is None:
        resolve(db, repo, request.branch)  # raises HubError if there is no such tag or commit
        raise bad_request(f"Commits go to a branch, and {request.branch} is not a branch")
    if request.parent is not None and request.parent != head.oid:
        if get_commit(db, repo, request.parent) is None:
            raise revision_not_found(request.parent)
        raise HubError(412, f"A commit has happened since. The head of {ref.name} is now {head.oid}")
    return _write(db, repo, ref.name, head, request)


def _write(db: sqlite3.Connection, repo: Repo, branch: str, head: Commit | None, request: CommitRequest) -> Commit:
    entries = _apply(db, repo, read_tree(db, head.tree) if head else {}, request.operations)
    tree = write_tree(db, entries)
    if head is not None and tree == head.tree:
        return head
    created_at = now()
    oid = gitobjects.commit_id(
        tree=tree,
        parent=head.oid if head else None,
        author=request.author,
        seconds=int(datetime.fromisoformat(created_at).astimezone(UTC).timestamp()),
        message=f"{request.title}\n\n{request.message}".strip(),
    )
    made = Commit(oid, tree, head.oid if head else None, request.author, request.title, request.message, created_at)
    # Two branches can make an identical commit within the same second. The database then holds it once.
    db.execute(
        "INSERT OR IGNORE INTO commits VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (repo.id, made.oid, made.tree, made.parent, made.author, made.title, made.message, made.created_at),
    )
    db.execute(
        "UPDATE refs SET target = ? WHERE repo = ? AND kind = 'branch' AND name = ?",
        (made.oid, repo.id, branch),
    )
    return made


def found_repo(
    db: sqlite3.Connection, repo_type: RepoType, repo_id: str, *, private: bool, author: str, attributes: TreeEntry
) -> Repo:
    """Makes a repo with its first commit. As on the public Hub, this commit holds only ``.gitattributes``."""
    repo = create_repo(db, repo_type, repo_id, private=private)
    first = _write(
        db, repo, DEFAULT_BRANCH, None, CommitRequest(DEFAULT_BRANCH, "initial commit", "", author, [Add(attributes)])
    )
    create_ref(db, repo, "branch", DEFAULT_BRANCH, first.oid)
    return repo
