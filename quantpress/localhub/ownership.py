"""Keeps the Hub's folder and database closed to other users of the machine.

The database holds the key that signs upload addresses, and the folder holds the files of private and gated repos.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def make_private(root: Path, database: str) -> None:
    """Makes the folder and an empty database if they do not exist, and closes both to everybody but their owner.

    An existing database is closed too, with its write-ahead log. New files of SQLite get the mode of the database.
    Raises OSError if the database is another user's.
    """
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(PermissionError):  # a mounted volume can belong to another user, who lets this one write there
        root.chmod(0o700)
    # An existing database must not be opened here: closing the file would drop SQLite's locks of this process on it
    # (https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_).
    with suppress(FileExistsError):
        os.close(os.open(root / database, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    for name in (database, f"{database}-wal", f"{database}-shm"):
        with suppress(FileNotFoundError):
            (root / name).chmod(0o600)
