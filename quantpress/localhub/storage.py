"""The files of all repos, kept once each under their SHA-256.

``objects/ab/abcd…`` holds a finished file and never changes; ``incoming/`` holds what is still on its
way. A file becomes an object by one rename, after its bytes and its hash are known to be right and on
disk: a crash leaves an object whole or absent.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from quantpress.files import fsync_folder
from quantpress.localhub.names import check_sha256

_ABANDONED_SECONDS = 24 * 3600


@dataclass(frozen=True)
class ObjectStore:
    """A folder of content-addressed files."""

    root: Path

    def prepare(self) -> None:
        """Make the folders, and drop uploads that nobody touched for a day."""
        self._objects.mkdir(parents=True, exist_ok=True)
        self.incoming.mkdir(parents=True, exist_ok=True)
        for leftover in self.incoming.iterdir():
            if leftover.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                leftover.unlink()

    @property
    def _objects(self) -> Path:
        return self.root / "objects"

    @property
    def incoming(self) -> Path:
        return self.root / "incoming"

    def path(self, sha256: str) -> Path:
        """Where the object lies or would lie. Raises HubError (400) if ``sha256`` is none."""
        check_sha256(sha256)
        return self._objects / sha256[:2] / sha256

    def size(self, sha256: str) -> int | None:
        """The object's size in bytes, or None where there is no such object."""
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError:
            return None

    def touch(self, sha256: str) -> None:
        """Say that the object is about to be used, so that collect_garbage leaves it alone."""
        os.utime(self.path(sha256))

    def add(self, content: bytes) -> str:
        """Keep a small file that is already in memory; returns its SHA-256."""
        sha256 = hashlib.sha256(content).hexdigest()
        if self.size(sha256) is not None:
            self.touch(sha256)
            return sha256
        temporary = self.incoming / f"small-{secrets.token_hex(16)}"
        try:
            temporary.write_bytes(content)
            self.adopt(temporary, sha256)
        finally:
            temporary.unlink(missing_ok=True)
        return sha256

    def adopt(self, temporary: Path, sha256: str) -> None:
        """Make a finished file of ``incoming`` an object. The caller has checked its hash."""
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
        """All objects."""
        return [path for shard in self._objects.iterdir() for path in shard.iterdir()]
