"""The user's cache. It holds what is built or downloaded once for all checkouts.

If several processes need the same thing, only one of them makes it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from quantpress.files import fsync_folder
from quantpress.toolchain.progress import Progress, silent


def cache_folder() -> Path:
    """Returns the folder for tools and demo models: ``QUANTPRESS_CACHE``, or else the platform's cache folder."""
    chosen = os.environ.get("QUANTPRESS_CACHE")
    if chosen:
        return Path(chosen).expanduser().resolve()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("quantpress"))


def make_once(folder: Path, make: Callable[[Path], None], progress: Progress = silent) -> Path:
    """Returns ``folder``. If it is missing, calls ``make`` with an empty temporary folder and renames the temporary
    folder to ``folder``.

    If several processes ask at the same time, the first one makes the folder, and the others wait for it and then use
    it. The kernel holds the lock, so it releases the lock when the process dies. Folders that killed processes left
    unfinished are removed. If ``make`` raises an error, nothing remains.
    """
    if folder.exists():
        return folder
    from filelock import FileLock, Timeout

    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.parent / f".{folder.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress(f"waiting for another process that is making {folder.name}", 0, 0)
        lock.acquire()
    try:
        if folder.exists():
            return folder
        for leftover in folder.parent.glob(f".{folder.name}.*.part"):
            shutil.rmtree(leftover)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
        try:
            make(part)
            # Only the owner can read a folder that mkdtemp makes, so open it for others.
            part.chmod(0o755)
            os.sync()
            part.rename(folder)
            fsync_folder(folder.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    finally:
        lock.release()
    return folder
