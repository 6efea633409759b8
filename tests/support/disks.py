"""Small disks, which tests can fill."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


@contextmanager
def disk_of(mount: Path, megabytes: int) -> Iterator[Path]:
    """Mounts a file system of this size, in 2^20 bytes, during a ``with`` block. Skips the test without root."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", mount], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True)


def fill(folder: Path, *, leave: int = 0) -> Path:
    """Makes a file that takes all free space of the folder's disk, except ``leave`` bytes. Returns the file.

    Others can write to the disk meanwhile.
    """
    file = folder / "filler"
    with file.open("wb") as stream:
        while (free := shutil.disk_usage(folder).free - leave) > 0:
            with suppress(OSError):  # another was faster, and this much is no longer free
                os.posix_fallocate(stream.fileno(), os.fstat(stream.fileno()).st_size, free)
    return file
