"""The user's cache: things are built or downloaded once, outside any checkout, by one process at a time."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from quantpress.files import fsync_folder
from quantpress.toolchain.progress import Progress, silent


def cache_folder() -> Path:
    """Returns where quantpress keeps tools and demo models: ``QUANTPRESS_CACHE``, or the platform's cache folder."""
    chosen = os.environ.get("QUANTPRESS_CACHE")
    if chosen:
        return Path(chosen).expanduser().resolve()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("quantpress"))


def make_once(folder: Path, make: Callable[[Path], None], progress: Progress = silent) -> Path:
    """Returns ``folder``. If it is missing, calls ``make`` on an empty folder and then renames that to ``folder``.

    Processes that ask at the same time wait for the first and make nothing. What a killed process left behind is
    removed. The kernel holds the lock, so the lock dies with its process. When ``make`` raises, nothing remains.
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
            # mkdtemp makes a folder that only its owner can read.
            part.chmod(0o755)
            os.sync()
            part.rename(folder)
            fsync_folder(folder.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    finally:
        lock.release()
    return folder
