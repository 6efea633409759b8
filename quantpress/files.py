"""Writes files atomically: a file appears whole or not at all, because it is written under a temporary name, fsynced
and then renamed. Also hashes files."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Returns the hex SHA-256 of a file's bytes. Reads the file in 1 MiB pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def sums_of(folder: Path, names: Iterable[str] | None = None) -> dict[str, str]:
    """Maps the path of each file in ``folder`` to its hex SHA-256. The paths are relative to ``folder``.

    ``names`` are the paths of the wanted files. Without ``names``, all files count, except links and what has a part of
    its path that begins with a dot, because such files are temporary.
    """
    if names is None:
        found = sorted(
            path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
        )
        names = [path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts)]
    return {name: sha256_of(folder / name) for name in names}


def changed(folder: Path, sums: Mapping[str, str]) -> list[str]:
    """Returns the paths in ``sums`` at which ``folder`` has no file or a file of another SHA-256."""
    return [name for name, digest in sums.items() if not _has_sum(folder / name, digest)]


def _has_sum(file: Path, digest: str) -> bool:
    return file.is_file() and sha256_of(file) == digest


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
