"""Hashes every object of a Hub again, sets the wrong ones aside, and names the files that they were.

An object that was set aside is missing from then on. The Hub therefore asks for it when a client uploads its file
again, and the upload heals every commit that has the file. The Hub can keep running meanwhile.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from quantpress.errors import BadInput
from quantpress.files import fsync_folder, sha256_of
from quantpress.localhub.database import initialise, is_hub, reading
from quantpress.localhub.storage import ObjectStore


@dataclass(frozen=True)
class Fault:
    """An object whose bytes are wrong or missing.

    ``files`` are the files of all commits that have this object, as ``namespace/name: path``. No commit has the object
    if ``files`` is empty.
    """

    sha256: str
    what: str
    files: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.sha256} {self.what}; it is {', '.join(self.files) or 'in no commit'}"


def check_objects(root: Path) -> Iterator[Fault]:
    """Yields the faults of the Hub in ``root`` as they are found, first the wrong objects and then the missing ones.

    Raises BadInput if the folder holds no Hub's data.
    """
    if not is_hub(root):
        raise BadInput(f"{root}: holds no Hub's data; give the Hub's folder by --root")
    initialise(root)
    store = ObjectStore(root)
    with reading(root) as db:
        files = _files(db)
    wrong: set[str] = set()
    for path in sorted(store.stored()):
        with suppress(FileNotFoundError):  # somebody collected the garbage meanwhile
            what = _set_aside_if_wrong(path, store.set_aside_folder)
            if what is not None:
                wrong.add(path.name)
                yield Fault(path.name, what, tuple(files.get(path.name, ())))
    for sha256, names in files.items():
        if sha256 not in wrong and store.size(sha256) is None:
            yield Fault(sha256, "is missing", tuple(names))


def _set_aside_if_wrong(path: Path, folder: Path) -> str | None:
    """Moves an object that is not of its hash into ``folder``. Returns what is wrong with it, or None."""
    before = path.stat()
    found = sha256_of(path)
    # A client can have healed the object meanwhile: an object of the wrong size is replaced by an upload.
    if found == path.name or not os.path.samestat(before, path.stat()):
        return None
    folder.mkdir(exist_ok=True)
    path.replace(folder / path.name)
    fsync_folder(folder)
    fsync_folder(path.parent)
    return f"has {before.st_size} bytes of SHA-256 {found}: set aside as {folder / path.name}"


def _files(db: sqlite3.Connection) -> dict[str, list[str]]:
    """Returns a dict from the hash of each object that a commit has to the names of its files."""
    rows = db.execute(
        """
        SELECT DISTINCT sha256, namespace, name, path
        FROM tree_entries JOIN commits ON commits.tree = tree_entries.tree JOIN repos ON repos.id = commits.repo
        ORDER BY namespace, name, path
        """
    )
    files: dict[str, list[str]] = {}
    for row in rows:
        files.setdefault(row["sha256"], []).append(f"{row['namespace']}/{row['name']}: {row['path']}")
    return files
