"""Stores the files of all repos. Each file is stored once, under its SHA-256.

``objects/ab/abcd…`` is a finished file and never changes. ``incoming/`` holds unfinished uploads. After the hash of an
upload is checked and its bytes are on disk, one rename turns the upload into an object. Therefore a crash leaves either
a whole object or no object.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from quantpress.files import fsync_folder
from quantpress.localhub.names import check_sha256, is_sha256

_ABANDONED_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Discarded:
    """A former object of ``size`` bytes, which now lies at ``path`` in ``incoming``."""

    path: Path
    size: int


@dataclass(frozen=True)
class ObjectStore:
    """A folder of files, each named by the SHA-256 of its content."""

    root: Path

    def prepare(self) -> None:
        """Makes the store's folders. Deletes unfinished uploads that have not changed for a day."""
        self._objects.mkdir(parents=True, exist_ok=True)
        self.incoming.mkdir(parents=True, exist_ok=True)
        for leftover in self.incoming.iterdir():
            # A server or another command can be at work in this folder. Folders are not the Hub's.
            with suppress(FileNotFoundError, IsADirectoryError):
                if leftover.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                    leftover.unlink()

    @property
    def _objects(self) -> Path:
        return self.root / "objects"

    @property
    def incoming(self) -> Path:
        return self.root / "incoming"

    @property
    def set_aside_folder(self) -> Path:
        """Where the check puts objects that are not of their hash. Nothing reads them there."""
        return self.root / "set-aside"

    def path(self, sha256: str) -> Path:
        """Returns the object's path, even if the object is not stored. Raises HubError (400) for an invalid SHA-256."""
        check_sha256(sha256)
        return self._objects / sha256[:2] / sha256

    def size(self, sha256: str) -> int | None:
        """Returns the object's size in bytes, or None if there is no such object."""
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError:
            return None

    def keep(self, sha256: str, size: int) -> bool:
        """Says whether the object of ``size`` bytes is stored, and sets its time of change to now.

        For a day, collect_garbage then keeps the object. This gives a client the time to commit the object.
        """
        if self.size(sha256) != size:
            return False
        try:
            os.utime(self.path(sha256))
        except FileNotFoundError:  # collect_garbage was faster
            return False
        return True

    def discard(self, sha256: str, seconds: float) -> Discarded | None:
        """Moves an object to ``incoming`` if nobody kept it within the last ``seconds``. Otherwise returns None."""
        path = self.path(sha256)
        moved = self.incoming / f"garbage-{sha256}"
        with suppress(FileNotFoundError):  # prepare() deletes what is old in ``incoming``
            status = path.stat()
            if time.time() - status.st_mtime <= seconds:
                return None
            path.replace(moved)
            if time.time() - moved.stat().st_mtime <= seconds:
                # A client kept the object after the first look. It believes that the object is stored, so it is again.
                moved.replace(path)
                return None
            return Discarded(moved, status.st_size)
        return None

    def add(self, content: bytes) -> str:
        """Stores a small file whose content is already in memory. Returns the file's SHA-256."""
        sha256 = hashlib.sha256(content).hexdigest()
        if self.keep(sha256, len(content)):
            return sha256
        temporary = self.incoming / f"small-{secrets.token_hex(16)}"
        try:
            temporary.write_bytes(content)
            self.adopt(temporary, sha256)
        finally:
            temporary.unlink(missing_ok=True)
        return sha256

    def adopt(self, temporary: Path, sha256: str) -> None:
        """Turns a finished file in ``incoming`` into an object.

        The caller must have checked that ``sha256`` is the hash of the file.
        """
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        target = self.path(sha256)
        if not target.parent.exists():
            target.parent.mkdir(exist_ok=True)
            fsync_folder(self._objects)
        temporary.replace(target)
        fsync_folder(target.parent)

    def stored(self) -> list[Path]:
        """Returns the paths of all objects. Anything else that lies between them is left alone."""
        return [path for path in self._objects.glob("??/*") if is_sha256(path.name)]
