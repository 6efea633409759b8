"""The uploads of large files: promises room on the disk, receives the bytes, and turns them into objects.

When the Hub gives out an upload address, it promises the room that the file needs. Nobody else is promised this room.
A promise is kept for a quarter of an hour after the last byte. Then the client has probably gone: the promise lapses,
and the bytes that arrived stay only until somebody else needs their room. A client that comes back later asks for room
again without knowing, because its address still works. If there is no room, the answer is 507.
"""

from __future__ import annotations

import re
import secrets
import shutil
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from starlette.concurrency import run_in_threadpool

from quantpress.localhub.errors import HubError, bad_request, is_disk_full, no_room
from quantpress.localhub.partial import PartialFile
from quantpress.localhub.storage import ObjectStore

# The room that stays free for SQLite, so that a disk full of objects still takes commits, deletions and tokens. The
# largest commit has 25,000 files. With paths of 200 characters, it takes 16 MB of the write-ahead log and 16 MB of the
# database (measured with SQLite 3.40).
HEADROOM = 32 * 1024 * 1024
# A press repeats a request for five minutes, so a client that is still there uses its address within this time.
_PROMISE_SECONDS = 900
# The largest part of a file of 50 GB, the most that huggingface.co takes, has 50 MB (a thousandth).
_DRAINED_BYTES = 64 * 1024 * 1024
_UPLOAD_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


def _fault(sha256: str, found: str) -> HubError:
    return HubError(422, f"The bytes received have SHA-256 {found}, not {sha256}: send them again")


async def _drain(stream: AsyncIterator[bytes]) -> None:
    """Reads the rest of a part. A client whose connection closes while it sends does not see the answer."""
    left = _DRAINED_BYTES
    async for chunk in stream:
        left -= len(chunk)
        if left < 0:
            return


class Uploads:
    """All uploads of one server."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._partial: dict[str, PartialFile] = {}
        self._lock = threading.RLock()

    def promise(self, wanted: Sequence[tuple[str, int]]) -> list[str | HubError]:
        """Promises room for files, each given by SHA-256 and size. Returns an upload id or an error (507) for each.

        If one of the files has no room, none gets any, because the client gives up all of them.
        """
        with self._lock:
            answers: list[str | HubError] = []
            for sha256, size in wanted:
                upload = secrets.token_hex(16)
                try:
                    self._claim(upload, sha256, size)
                    answers.append(upload)
                except HubError as error:
                    answers.append(error)
            if any(isinstance(answer, HubError) for answer in answers):
                for answer in answers:
                    if isinstance(answer, str) and answer in self._partial:
                        self._forget(answer, self._partial[answer])
            return answers

    def require_room(self, size: int) -> None:
        """Raises HubError (507) if the disk has no room for ``size`` more bytes beside what was promised."""
        with self._lock:
            if size > self._free():
                self._make_room(size, None)
            if size > (free := self._free()):
                raise no_room(f"{size} bytes wanted, {max(0, free)} free")

    async def receive_part(
        self, upload: str, sha256: str, size: int, stream: AsyncIterator[bytes], offset: int, length: int
    ) -> str:
        """Receives one part (or all) of a file of ``size`` bytes. Returns the CRC-32 of the part in hexadecimal.

        Raises HubError (507) if the disk is full. All bytes of this upload are deleted then.
        """
        try:
            file = await run_in_threadpool(self._claim, upload, sha256, size)
        except HubError:
            await _drain(stream)
            raise
        try:
            return await file.receive(stream, offset, length)
        except OSError as error:
            if not is_disk_full(error):
                raise
            await run_in_threadpool(self._forget, upload, file)
            await _drain(stream)
            raise no_room(f"the disk was full before the {size} bytes of {sha256} had arrived") from error

    def finish(self, upload: str, sha256: str, size: int) -> None:
        """Turns the received file into an object. A second call changes nothing.

        Raises HubError: 400 if bytes are missing, 422 if the file's hash is not ``sha256``, 503 if bytes are still
        arriving.
        """
        with self._lock:
            file = self._file(upload, sha256, size)
            if not file.path.exists():
                self._forget(upload, file)  # without bytes, it must not count as a promise
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

    def _file(self, upload: str, sha256: str, size: int) -> PartialFile:
        if _UPLOAD_ID.fullmatch(upload) is None:
            raise bad_request("Not an upload id")
        with self._lock:
            path = self._store.incoming / f"large-{upload}-{sha256}"
            return self._partial.setdefault(upload, PartialFile(path, sha256, size))

    def _claim(self, upload: str, sha256: str, size: int) -> PartialFile:
        """Returns the file of an upload. Promises it the room that it needs, unless it has a promise.

        Raises HubError (507) if there is no room. The bytes that have arrived are deleted then.
        """
        with self._lock:
            promised = self._partial.get(upload)
            if promised is not None and not _lapsed(promised):
                return promised
            file = self._file(upload, sha256, size)
            file.use()
            # The file itself is among what was promised, so what must be free for it is nothing.
            if self._free() < 0:
                self._make_room(0, file)
            if self._free() < 0:
                free = self._free() + file.missing
                self._forget(upload, file)
                raise no_room(f"{file.size} bytes wanted, {max(0, free)} free")
            return file

    def _free(self) -> int:
        """Returns the free bytes of the disk that nobody was promised and SQLite does not need. Can be negative."""
        promised = sum(file.missing for file in self._partial.values() if not _lapsed(file))
        return shutil.disk_usage(self._store.incoming).free - HEADROOM - promised

    def _make_room(self, size: int, wanted: PartialFile | None) -> None:
        """Deletes bytes whose sender has gone, until ``size`` bytes are free.

        These are the bytes of lapsed promises, files that an earlier server left as long ago, and what earlier attempts
        to upload ``wanted`` left.
        """
        sha256 = wanted.sha256 if wanted is not None else None
        for upload, file in list(self._partial.items()):
            again = file is not wanted and file.sha256 == sha256
            if (again or _lapsed(file)) and self._free() < size:
                with suppress(HubError):  # bytes arrive right now, so its sender has not gone
                    file.close()
                    self._forget(upload, file)
        known = {file.path for file in self._partial.values()}
        for path in self._store.incoming.glob("large-*"):
            if path not in known and self._free() < size:
                with suppress(FileNotFoundError):
                    again = sha256 is not None and path.name.endswith(sha256)
                    if again or time.time() - path.stat().st_mtime > _PROMISE_SECONDS:
                        path.unlink()

    def _forget(self, upload: str, file: PartialFile) -> None:
        """Drops an upload with its bytes. A later request with the same address begins with an empty file."""
        with self._lock:
            if self._partial.get(upload) is file:
                file.path.unlink(missing_ok=True)
                del self._partial[upload]


def _lapsed(file: PartialFile) -> bool:
    return file.idle_seconds > _PROMISE_SECONDS
