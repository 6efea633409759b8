"""Computes git's object ids without git. Clients compare these ids, and the Hub names commits by them.

Git's formats are described in https://git-scm.com/book/en/v2/Git-Internals-Git-Objects. The format of LFS pointers is
described in https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md. Ids are SHA-1 in hexadecimal.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:[0-9a-f]{64}\nsize [0-9]+\n")


def _object_id(kind: str, body: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(body)}\0".encode() + body, usedforsecurity=False).hexdigest()


def blob_id(content: bytes) -> str:
    return _object_id("blob", content)


def lfs_pointer(sha256: str, size: int) -> bytes:
    """Returns the LFS pointer, which git stores in place of a large file. ``size`` is the file's size in bytes."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def is_lfs_pointer(data: bytes) -> bool:
    """Returns whether ``data`` is a pointer as :func:`lfs_pointer` writes it."""
    return bool(_POINTER.fullmatch(data))


def tree_ids(blobs: Mapping[str, str]) -> dict[str, str]:
    """Returns a dict from the path of each folder of a tree to the folder's id. The root's path is ``""``.

    ``blobs`` maps the path of each file of the tree to its blob id.
    """
    folders: dict[str, dict[str, tuple[str, str]]] = {"": {}}
    for path, blob in blobs.items():
        parent, _, name = path.rpartition("/")
        folders.setdefault(parent, {})[name] = ("100644", blob)
        while parent:
            parent = parent.rpartition("/")[0]
            folders.setdefault(parent, {})
    ids: dict[str, str] = {}
    # The deepest folders come first, because a folder's id needs the ids of the folders inside it.
    for folder in sorted(folders, key=lambda path: -path.count("/") - bool(path)):
        items = folders[folder]
        # Git sorts a folder as if its name ended in "/".
        ordered = sorted(items.items(), key=lambda item: item[0].encode() + (b"/" if item[1][0] == "40000" else b""))
        body = b"".join(f"{mode} {name}".encode() + b"\0" + bytes.fromhex(oid) for name, (mode, oid) in ordered)
        ids[folder] = _object_id("tree", body)
        if folder:
            parent, _, name = folder.rpartition("/")
            folders[parent][name] = ("40000", ids[folder])
    return ids


def commit_id(*, tree: str, parent: str | None, author: str, seconds: int, message: str) -> str:
    """Returns the id of a commit. ``seconds`` is the time of the commit: seconds since the epoch, in UTC."""
    person = f"{author} <{author}@localhub> {seconds} +0000"
    parents = f"parent {parent}\n" if parent else ""
    return _object_id("commit", f"tree {tree}\n{parents}author {person}\ncommitter {person}\n\n{message}\n".encode())
