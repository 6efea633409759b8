"""Receives large files: writes the bytes to disk and hashes them as they arrive. No file is ever whole in memory.

The server writes each part of an upload directly to its place in one file on the disk. If the parts arrive in order,
the server hashes them as they arrive, and does not read the file again when the upload is completed. huggingface_hub
sends the parts in order. If the server restarts, the hash of the earlier parts is lost. The server then reads the file
once when the upload is completed.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from starlette.concurrency import run_in_threadpool

from quantpress.localhub.errors import HubError, bad_request
from quantpress.localhub.storage import ObjectStore

_BLOCK = 1 << 20  # bytes handed to a thread at once
_UPLOAD_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


def _fault(sha256: str, found: str) -> HubError:
    return HubError(422, f"The bytes received have SHA-256 {found}, not {sha256}: send them again")


async def _blocks(stream: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    """Joins the small chunks of a stream into larger blocks and yields these.

    Raises HubError: 413 as soon as the stream exceeds ``limit`` bytes, 400 if the stream ends before ``limit`` bytes.
    """
    pending: list[bytes] = []
    waiting = total = 0
    async for chunk in stream:
        total += len(chunk)
        if total > limit:
            raise HubError(413, f"More bytes than the {limit} announced")
        pending.append(chunk)
        waiting += len(chunk)
        if waiting >= _BLOCK:
            yield b"".join(pending)
            pending, waiting = [], 0
    if pending:
        yield b"".join(pending)
    if total != limit:
        raise bad_request(f"{total} bytes arrived, {limit} were announced: send them again")


class PartialFile:
    """A file of ``size`` bytes that the server is receiving, in one piece or in parts.

    The hash covers the first ``_hashed`` bytes, as long as nobody else wrote to the file meanwhile. A write below that
    position makes the hash worthless before its first byte is written, because the write can be cut off anywhere. So do
    two writes at the same time. The hash object is then replaced, and a writer that began with the old one cannot put
    its own in place.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self.completing = threading.Lock()  # held while the file becomes an object
        self._hash: Any = hashlib.sha256()
        self._hashed = 0
        self._writers = 0
        self._closed = False
        self._lock = threading.Lock()

    @contextmanager
    def _writing(self, offset: int) -> Iterator[Any]:
        """Registers a write at ``offset``. Yields the hash object that the write may continue, or None."""
        with self._lock:
            if self._closed:
                raise HubError(409, "This upload is complete: ask for a new one")
            self._writers += 1
            if offset < self._hashed or self._writers > 1:
                self._hash, self._hashed = hashlib.sha256(), 0
            base = self._hash if offset == self._hashed and self._writers == 1 else None
        try:
            yield base
        finally:
            with self._lock:
                self._writers -= 1

    def close(self) -> None:
        """Forbids further writes, so that the bytes do not change while they are hashed.

        Raises HubError: 503 if a write is in progress, 409 if the file is closed already.
        """
        with self._lock:
            if self._closed:
                raise HubError(409, "This upload is over: ask for a new one")
            if self._writers:
                raise HubError(503, "Bytes of this upload are still arriving: complete it when they are here")
            self._closed = True

    async def receive(self, stream: AsyncIterator[bytes], offset: int, length: int) -> str:
        """Writes the stream's ``length`` bytes to the file at ``offset``.

        Returns the CRC-32 of these bytes in hexadecimal.
        """
        checksum = 0
        with self._writing(offset) as base:
            running = base.copy() if base is not None else None
            with await run_in_threadpool(self._open) as file:
                file.seek(offset)
                async for block in _blocks(stream, length):
                    await run_in_threadpool(file.write, block)
                    if running is not None:
                        await run_in_threadpool(running.update, block)
                    checksum = zlib.crc32(block, checksum)
            with self._lock:
                if running is not None and self._hash is base:
                    self._hash, self._hashed = running, offset + length
        return f"{checksum:08x}"

    def _open(self) -> BinaryIO:
        return os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")

    def digest(self) -> str:
        """Returns the SHA-256 of the whole file.

        Reads the file from disk only if the bytes were not all hashed as they arrived.
        """
        with self._lock:
            if self._hashed == self.size:
                return str(self._hash.hexdigest())
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


class Uploads:
    """All uploads of one server."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._partial: dict[str, PartialFile] = {}
        self._lock = threading.Lock()

    def _file(self, upload: str, size: int) -> PartialFile:
        if _UPLOAD_ID.fullmatch(upload) is None:
            raise bad_request("Not an upload id")
        with self._lock:
            return self._partial.setdefault(upload, PartialFile(self._store.incoming / f"large-{upload}", size))

    async def receive_part(self, upload: str, size: int, stream: AsyncIterator[bytes], offset: int, length: int) -> str:
        """Receives one part (or all) of a file of ``size`` bytes. Returns the CRC-32 of the part in hexadecimal."""
        return await self._file(upload, size).receive(stream, offset, length)

    def finish(self, upload: str, sha256: str, size: int) -> None:
        """Turns the received file into an object. A second call changes nothing.

        Raises HubError: 400 if bytes are missing, 422 if the file's hash is not ``sha256``, 503 if bytes are still
        arriving.
        """
        file = self._file(upload, size)
        # The client can repeat its request while the first one is under way. The second request waits for the first.
        with file.completing:
            if self._store.size(sha256) == size:
                self._forget(upload, file)
                return
            received = file.path.stat().st_size if file.path.exists() else 0
            if received != size:
                raise bad_request(f"{received} of {size} bytes of {sha256} arrived: send them again")
            file.close()
            try:
                found = file.digest()
                if found != sha256:
                    raise _fault(sha256, found)
                self._store.adopt(file.path, sha256)
            finally:
                self._forget(upload, file)

    def _forget(self, upload: str, file: PartialFile) -> None:
        """Drops an upload with its bytes. A later request with the same address begins with an empty file."""
        with self._lock:
            if self._partial.get(upload) is file:
                file.path.unlink(missing_ok=True)
                del self._partial[upload]
