"""Ends connections that make the Hub wait: half-sent requests, and answers that nobody reads.

uvicorn waits for a request's header and body without end. A few hundred such connections would take all the room that
``limit_concurrency`` gives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import h11
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from quantpress.localhub.errors import HubError

#: With more connections than the first, a request is answered with 503. With more than the second, connections are
#: closed unanswered. A connection takes at most two files, and a process may often open 1,024.
MAX_REQUESTS, MAX_CONNECTIONS = 256, 400


@dataclass(frozen=True)
class Deadlines:
    """How long the Hub waits for a client, in seconds.

    ``head``: for the header of a request. ``body``: for the body, and longer by one second for each ``rate`` bytes that
    arrived, as Apache's mod_reqtimeout counts (its default is 20 s and 500 bytes a second). ``rest``: for the rest of a
    body after the answer was sent. ``reading``: for the client to read what the Hub has sent, at most 1 MB of a file.
    """

    head: float = 20
    body: float = 20
    rate: float = 4096
    rest: float = 10
    reading: float = 60


USUAL = Deadlines()


class BodyDeadline:
    """Refuses a request (408) whose body arrives too slowly. Only time in which the Hub waited for bytes counts."""

    def __init__(self, app: ASGIApp, deadlines: Deadlines) -> None:
        self._app = app
        self._deadlines = deadlines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        clock = asyncio.get_running_loop().time
        allowed = self._deadlines.body
        complete = False

        async def bounded() -> Message:
            nonlocal allowed, complete
            if complete:  # what comes now is the client's leaving
                return await receive()
            started = clock()
            try:
                async with asyncio.timeout(allowed):
                    message = await receive()
            except TimeoutError as error:
                raise HubError(408, "The body of the request arrived too slowly: send it again") from error
            allowed += len(message.get("body", b"")) / self._deadlines.rate - (clock() - started)
            complete = not message.get("more_body", False)
            return message

        await self._app(scope, bounded if scope["type"] == "http" else receive, send)


class BoundedConnection(H11Protocol):
    """uvicorn's connection, ended when its client makes the Hub wait too long. The middleware watches the body."""

    def __init__(self, deadlines: Deadlines, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._deadlines = deadlines
        self._arriving = _Timer()  # for what the client has to send
        self._leaving = _Timer()  # for what the client has to read

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
            return
        # The buffer counts as full from its first byte on, which is when the system's own buffer is full. So
        # pause_writing() says that the client does not read, also at the end of an answer.
        transport.set_write_buffer_limits(high=0)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._arriving.stop()
        self._leaving.stop()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._leaving.start("answer", self._deadlines.reading, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._leaving.stop()

    def _watch(self) -> None:
        """Starts the timer for the part of a request that the Hub waits for. A timer that runs for it goes on."""
        if self.transport.is_closing():
            self._arriving.stop()
        elif self.conn.their_state is h11.IDLE:
            self._arriving.start("head", self._deadlines.head, self.transport.abort)
        elif self.conn.their_state is h11.SEND_BODY and self.conn.our_state is not h11.SEND_RESPONSE:
            self._arriving.start("rest", self._deadlines.rest, self.transport.abort)
        else:
            self._arriving.stop()


def server_config(app: ASGIApp, deadlines: Deadlines) -> uvicorn.Config:
    """Returns the settings of a server whose connections do not wait for their clients longer than ``deadlines``.

    The middleware of ``app`` watches over bodies.
    """
    return uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", partial(BoundedConnection, deadlines)),
        ws="none",
        lifespan="off",
        limit_concurrency=MAX_REQUESTS,
        timeout_graceful_shutdown=5,
        log_level="warning",
        access_log=False,
    )


class _Timer:
    """Calls a function after some time, unless it is stopped before."""

    def __init__(self) -> None:
        self._what = ""
        self._handle: asyncio.TimerHandle | None = None

    def start(self, what: str, seconds: float, end: Callable[[], None]) -> None:
        """Starts the timer for ``what``. If it already runs for the same, it keeps its time."""
        if self._what != what:
            self.stop()
            self._what = what
            self._handle = asyncio.get_running_loop().call_later(seconds, end)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._what, self._handle = "", None
