"""A bad line to a Hub: a proxy on 127.0.0.1 that answers in the Hub's place, cuts connections and loses answers.

Every connection carries one request. The test decides what happens to a request before its first byte is passed on.
A watcher sees every chunk of a request's body pass, and can kill the sender.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal
from urllib.parse import urlsplit

_CHUNK = 64 * 1024
_HEAD = 256 * 1024


class Fault(Enum):
    """What the line does to a request."""

    ERROR = "answers 500"
    BUSY = "answers 503"
    LIMIT = "answers 429 and asks to wait a second"
    CUT_REQUEST = "resets the connection within the request"
    CUT_ANSWER = "resets the connection within the answer"
    LOSE_ANSWER = "passes the request on and resets the connection instead of the answer"


_ANSWERS = {
    Fault.ERROR: (500, "Internal Server Error", ""),
    Fault.BUSY: (503, "Service Unavailable", ""),
    Fault.LIMIT: (429, "Too Many Requests", "Retry-After: 1\r\n"),
}


@dataclass(frozen=True)
class Request:
    """A request's first line, and the bytes of its body."""

    method: str
    path: str
    length: int

    @property
    def kind(self) -> Literal["commit", "upload", "download", "other"]:
        if self.method == "POST" and "/commit/" in self.path:
            return "commit"
        if self.method == "PUT" and self.path.startswith("/lfs/"):
            return "upload"
        if self.method == "GET" and "/resolve/" in self.path:
            return "download"
        return "other"


def _no_fault(_: Request) -> Fault | None:
    return None


def unwatched(_: Request, __: int) -> None:
    """Nobody watches."""


@dataclass
class Line:
    """A running proxy. A test can point ``upstream`` to a Hub that was started anew."""

    upstream: str
    endpoint: str = ""
    decide: Callable[[Request], Fault | None] = _no_fault
    #: Requests whose path begins with this get a 404, as on a Hub that lacks a part of the API.
    absent: str | None = None
    #: Called at the request's start and after every chunk, with the number of bytes of the body that have passed.
    watch: Callable[[Request, int], None] = unwatched
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    seen: list[tuple[Request, Fault | None]] = field(default_factory=list)

    def faults(self) -> list[Fault]:
        """Returns the faults that requests have met so far."""
        return [fault for _, fault in self.seen if fault is not None]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carries one request."""
        with suppress(OSError, asyncio.IncompleteReadError):
            try:
                await self._carry(reader, writer)
            finally:
                writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        request = _parse(head)
        fault = self.decide(request)
        self.seen.append((request, fault))
        self.watch(request, 0)
        answer = _ANSWERS.get(fault) if fault else None
        if self.absent is not None and request.path.startswith(self.absent):
            answer = (404, "Not Found", "")
        if answer is not None:
            await self._swallow(reader, request)
            status, phrase, header = answer
            writer.write(
                f"HTTP/1.1 {status} {phrase}\r\n{header}Content-Length: 0\r\nConnection: close\r\n\r\n".encode()
            )
            await writer.drain()
            return
        address = urlsplit(self.upstream)
        try:
            from_hub, to_hub = await asyncio.open_connection(address.hostname, address.port, limit=_HEAD)
        except OSError:
            _reset(writer)
            return
        try:
            to_hub.write(head.removesuffix(b"\r\n") + b"Connection: close\r\n\r\n")
            whole = await self._send_body(reader, to_hub, request, fault)
            if whole:
                await self._answer(from_hub, writer, fault)
            if fault is not None or not whole:
                _reset(to_hub)
                _reset(writer)
        finally:
            to_hub.close()

    async def _swallow(self, reader: asyncio.StreamReader, request: Request) -> None:
        rest = request.length
        while rest and (chunk := await reader.read(min(_CHUNK, rest))):
            rest -= len(chunk)

    async def _send_body(
        self, reader: asyncio.StreamReader, to_hub: asyncio.StreamWriter, request: Request, fault: Fault | None
    ) -> bool:
        """Returns whether the whole body went through."""
        end = self.chance.randrange(request.length + 1) if fault is Fault.CUT_REQUEST else request.length
        passed = 0
        while passed < end:
            chunk = await reader.read(min(_CHUNK, end - passed))
            if not chunk:
                return False
            to_hub.write(chunk)
            await to_hub.drain()
            passed += len(chunk)
            self.watch(request, passed)
        await to_hub.drain()
        return fault is not Fault.CUT_REQUEST

    async def _answer(self, from_hub: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault | None) -> None:
        head = await from_hub.readuntil(b"\r\n\r\n")
        length = _length(head)
        end = self.chance.randrange(length) if fault is Fault.CUT_ANSWER and length else length
        if fault is not Fault.LOSE_ANSWER:
            writer.write(head)
        passed = 0
        while passed < end and (chunk := await from_hub.read(min(_CHUNK, end - passed))):
            passed += len(chunk)
            if fault is not Fault.LOSE_ANSWER:
                writer.write(chunk)
                await writer.drain()
        if fault is None:
            # An answer without a length ends when the Hub closes the connection.
            while chunk := await from_hub.read(_CHUNK):
                writer.write(chunk)
                await writer.drain()


def _parse(head: bytes) -> Request:
    method, path, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
    return Request(method, path, _length(head))


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _reset(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


@contextmanager
def bad_line(upstream: str, seed: int = 0) -> Iterator[Line]:
    """Runs a line to ``upstream`` until the block ends. The line makes no faults until a test sets its ``decide``."""
    line = Line(upstream, chance=random.Random(seed))
    loop = asyncio.new_event_loop()
    started: Future[int] = Future()

    async def run() -> None:
        server = await asyncio.start_server(line.serve, "127.0.0.1", 0, limit=_HEAD)
        started.set_result(server.sockets[0].getsockname()[1])
        async with server:
            await server.serve_forever()

    def work() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(main)

    main = loop.create_task(run())
    thread = threading.Thread(target=work)
    thread.start()
    line.endpoint = f"http://127.0.0.1:{started.result(timeout=30)}"
    try:
        yield line
    finally:
        loop.call_soon_threadsafe(main.cancel)
        thread.join()
        loop.close()
