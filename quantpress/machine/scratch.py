"""Scratch folders: each exists as long as one piece of work. If the work is killed, later work removes its folder.

Scratch folders are under the home folder, which is on the disk that an operator chose for large files. A process locks
its scratch folder while it uses the folder. The kernel releases the lock when the process ends or is killed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock


@contextmanager
def scratch(home: Path, purpose: str) -> Iterator[Path]:
    """Makes an empty folder whose name begins with ``purpose``. Yields the folder's absolute path, and removes the
    folder at the end."""
    home = home.absolute()
    with _guard(home):
        _remove_abandoned(home)
        _folder_of(home).mkdir(exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{purpose}-", dir=_folder_of(home)))
        used = _lock_of(folder)
        used.acquire()
    try:
        yield folder
    finally:
        with _guard(home):
            used.release()
            shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned_scratch(home: Path) -> None:
    """Removes the scratch folders that no process uses any more."""
    if _folder_of(home).is_dir():
        with _guard(home):
            _remove_abandoned(home)


def _remove_abandoned(home: Path) -> None:
    from filelock import Timeout

    for folder in _folder_of(home).glob("*/"):
        with suppress(Timeout), _lock_of(folder).acquire(timeout=0):
            shutil.rmtree(folder, ignore_errors=True)


def _guard(home: Path) -> BaseFileLock:
    """Returns the lock to hold while scratch folders are made or removed.

    Without this lock, another process could remove a new folder before the folder has its own lock.
    """
    from filelock import FileLock

    (home / "locks").mkdir(parents=True, exist_ok=True)
    return FileLock(home / "locks" / "scratch.lock")


def _lock_of(folder: Path) -> BaseFileLock:
    from filelock import FileLock

    return FileLock(folder / ".lock")


def _folder_of(home: Path) -> Path:
    return home / "scratch"
