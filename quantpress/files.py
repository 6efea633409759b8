"""Writes files atomically: a file appears whole or not at all, because it is written under a temporary name, fsynced
and then renamed. Also hashes files."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Returns the hex SHA-256 of a file's bytes. Reads the file in 1 MiB pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def stays_within(path: str) -> bool:
    """Says whether a path that a Hub lists stays within the folder of the downloaded repo.

    False if a part of the path is empty, ``.`` or ``..``, or if the path has a backslash or a control character.
    """
    parts = path.split("/")
    return not ({"", ".", ".."} & set(parts) or "\\" in path or any(character < " " for character in path))


def git_sha1_of(path: Path) -> str:
    """Returns git's hex SHA-1 of a file's bytes. The Hub lists this hash for files that are not in LFS."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside ``path``. On success the temporary file is fsynced and renamed to ``path``.

    On an exception the temporary file is removed, and ``path`` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
        fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Writes bytes atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def place(source: Path, target: Path) -> None:
    """Puts the finished file ``source`` at ``target`` too, atomically. Makes a hard link, else a copy."""
    with atomic(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def fsync_folder(folder: Path) -> None:
    """Writes ``folder`` itself to disk, so that a rename inside it survives a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
