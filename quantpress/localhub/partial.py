"""A file that arrives: its bytes go to their places on the disk, and are hashed as they arrive.

No file is ever whole in memory. If the parts arrive in order, the server does not read the file again when the upload
is completed. huggingface_hub sends the parts in order. If the server restarts, the hash of the earlier parts is lost.
The server then reads the file once when the upload is completed.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from starlette.concurrency import run_in_threadpool

from quantpress.localhub.errors import HubError, bad_request

_BLOCK = 1 << 20  # bytes handed to a thread at once
_STAT_BLOCK = 512  # bytes of a block in st_blocks (man 3type stat)


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
    """A file of ``size`` bytes and of this SHA-256 that the server is receiving, in one piece or in parts.

    The hash covers the first ``_hashed`` bytes, as long as nobody else wrote to the file meanwhile. A write below that
    position makes the hash worthless before its first byte is written, because the write can be cut off anywhere. So do
    two writes at the same time. The hash object is then replaced, and a writer that began with the old one cannot put
    its own in place.
    """

    def __init__(self, path: Path, sha256: str, size: int) -> None:
        self.path = path
        self.sha256 = sha256
        self.size = size
        self._last_used = time.monotonic()
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
                self._last_used = time.monotonic()

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

    def use(self) -> None:
        """Notes that the sender is there."""
        self._last_used = time.monotonic()

    @property
    def idle_seconds(self) -> float:
        """How long nobody has sent bytes."""
        with self._lock:
            return 0.0 if self._writers else time.monotonic() - self._last_used

    @property
    def missing(self) -> int:
        """The bytes that the disk must still take. A part that has not arrived takes no space, even if a later part
        has."""
        try:
            return max(0, self.size - self.path.stat().st_blocks * _STAT_BLOCK)
        except FileNotFoundError:
            return self.size

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
