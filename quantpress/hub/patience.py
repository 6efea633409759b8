"""Patience with a Hub that is busy, restarting or behind a bad line: every request of the Hub client is repeated until
it is answered, for a bounded time.

It sits in the HTTP client that huggingface_hub uses for everything, because the library repeats some of its requests
only (LFS uploads and listings, five times within 23 s; not a commit, not the making of a repo), and never after an
HTTP date. A request may be repeated because every one of ours leaves the same behind when it is done twice: making a
repo, a branch or a tag that is there is answered with 409, which the library takes for success; LFS objects are named
by their hash; a commit names its parent, so that a repetition of one whose reply was lost is refused with 412
(:func:`quantpress.publish.commit.publish` then finds the first one).

huggingface_hub 1.x speaks through httpx, 2.x through httpx2, whose API is the same.
"""

from __future__ import annotations

import logging
import random
import re
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import ModuleType, new_class
from typing import TYPE_CHECKING, Any, cast

from quantpress.errors import QuantpressError
from quantpress.hub.limits import COMMITS, CommitPace
from quantpress.settings import HUGGING_FACE

if TYPE_CHECKING:
    import httpx

#: Answers that another try may turn into success: the ones that huggingface_hub's http_backoff repeats, too.
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
#: Seconds without a byte after which a connection is given up. The Hub answers the completion of an upload when it has
#: hashed the file: 50 GB, its largest, at some 200 MB/s.
_SILENCE = 300.0
_CONNECTING = 15.0
#: What huggingface_hub asks of huggingface.co for its own sake, and does without where nothing answers: which programs
#: to name in its headers (utils/_detect_agent.py of 1.33). Seen on a machine without a network: patience with it held
#: up the first request to a Hub at hand for five minutes.
_ASIDE = "/api/agent-harnesses"
#: Where a request keeps its body's file, to begin again at its start.
_BODY = "quantpress.body"

#: ``"api";r=0;t=55``: none of the requests of the window remain, the next window begins in 55 s.
_NOTHING_LEFT = re.compile(r"r=0\s*;\s*t=(\d+)")
_RETRY_IN = re.compile(r"retry this action in (?:about )?(\d{1,6}) (second|minute|hour)")
_UNITS = {"second": 1.0, "minute": 60.0, "hour": 3600.0}

_log = logging.getLogger(__name__)


class HubFailed(QuantpressError):
    """A Hub did not answer a request, or refused it for now, for longer than our patience."""


@dataclass(frozen=True)
class Patience:
    """``seconds`` for which a request is repeated after its first failure; waits double from ``first_wait`` to
    ``longest_wait`` seconds. Where the Hub says itself how long to wait, it is believed for up to ``told`` seconds in
    all: the longest of its limits counts commits over an hour (quantpress.hub.limits)."""

    seconds: float = 300.0
    told: float = 3700.0
    first_wait: float = 0.5
    longest_wait: float = 30.0

    def waits(self) -> Iterator[float]:
        """Seconds to wait before each repetition, shortened at random by up to a half, so that presses that failed
        together do not come back together."""
        wait = self.first_wait
        while True:
            yield wait * random.uniform(0.5, 1.0)
            wait = min(2 * wait, self.longest_wait)


def seconds_told(retry_after: str, now: datetime) -> float | None:
    """Seconds to wait by a ``Retry-After`` header: a number of them, or an HTTP date (RFC 9110, section 10.2.3).

    None where it is neither; 0 for a date that has passed.
    """
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    # A date of "-0000" has no time zone; HTTP dates are UTC.
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds())


def be_patient(patience: Patience) -> None:
    """Lets huggingface_hub's client repeat requests in this process; doing it twice is doing it once."""
    from huggingface_hub import get_session, set_client_factory

    session = get_session()
    if getattr(session, "patience", None) != patience:
        library, hooks = http_library(), session.event_hooks
        # The client may be closed and made anew; what it has committed still counts.
        pace = getattr(session, "pace", None) or CommitPace(time.monotonic, time.sleep, _say_pace)
        set_client_factory(lambda: _patient_client(library, patience, hooks, pace))


def http_library() -> ModuleType:
    """The library that huggingface_hub speaks HTTP with."""
    from huggingface_hub.errors import HfHubHTTPError

    (base,) = (kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
    return sys.modules[base.__module__.partition(".")[0]]


def _patient_client(library: Any, patience: Patience, hooks: Any, pace: CommitPace) -> httpx.Client:
    plain: type[httpx.Client] = library.Client
    broken = (library.TimeoutException, library.NetworkError, library.RemoteProtocolError)

    def build_request(self: httpx.Client, *args: Any, **options: Any) -> httpx.Request:
        request = plain.build_request(self, *args, **options)
        body: Any = options.get("data")
        if hasattr(body, "seek"):
            request.extensions[_BODY] = (body, body.tell())
        return request

    def send(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        if request.url.path == _ASIDE:
            return plain.send(self, request, **options)
        if _is_limited(request):
            pace.take()
        response = _patiently(lambda: plain.send(self, request, **options), request, patience, broken)
        if options.get("stream"):
            response.stream = _resumable(library, response.stream)
        return response

    kind = new_class(
        "PatientClient",
        (plain,),
        exec_body=lambda body: body.update(build_request=build_request, send=send, patience=patience, pace=pace),
    )
    timeout = library.Timeout(_SILENCE, connect=_CONNECTING)
    return cast("httpx.Client", kind(event_hooks=hooks, follow_redirects=True, timeout=timeout))


def _is_limited(request: httpx.Request) -> bool:
    """Whether it is a commit to huggingface.co, whose limit is known beforehand; other Hubs say theirs with a 429."""
    return (
        request.method == "POST" and "/commit/" in request.url.path and str(request.url).startswith(f"{HUGGING_FACE}/")
    )


def _resumable(library: Any, stream: Any) -> Any:
    """A download's body. huggingface_hub goes on with a download after RemoteProtocolError, which a connection that is
    closed too early raises, but not after ReadError, which one that is reset raises (file_download.http_get)."""

    def chunks(_: Any) -> Iterator[bytes]:
        try:
            yield from stream
        except library.ReadError as error:
            raise library.RemoteProtocolError(str(error) or "connection reset") from error

    def close(_: Any) -> None:
        stream.close()

    kind = new_class(
        "ResumableStream", (library.SyncByteStream,), exec_body=lambda body: body.update(__iter__=chunks, close=close)
    )
    return kind()


def _patiently(
    send: Callable[[], httpx.Response], request: httpx.Request, patience: Patience, broken: tuple[type[Exception], ...]
) -> httpx.Response:
    """Sends a request until it is answered with success or with an error that stays. Raises :class:`HubFailed`."""
    first: float | None = None
    for wait in patience.waits():
        told = None
        try:
            response = send()
        except broken as error:
            if _stays(error):
                raise
            trouble = str(error) or type(error).__name__
        else:
            if response.status_code not in _PASSING:
                return response
            told = _told(response)
            trouble = _said(response)
            response.close()
        now = time.monotonic()
        first = now if first is None else first
        pause = wait if told is None else max(wait, told)
        if now - first + pause > (patience.seconds if told is None else patience.told):
            raise HubFailed(
                f"{request.method} {_address(request)}: {trouble}"
                + (f", for {now - first:.0f} s" if now > first else "")
                + (f"; it asks to wait {told:.0f} s" if told else "; try again later")
            )
        _log.warning("%s %s: %s; again in %.1f s", request.method, _address(request), trouble, pause)
        time.sleep(pause)
        if _BODY in request.extensions:
            body, start = request.extensions[_BODY]
            body.seek(start)
    raise AssertionError("waits never end")


def _told(response: httpx.Response) -> float | None:
    """Seconds that the Hub asks to wait for: by ``Retry-After``, by the ``RateLimit`` header that huggingface.co sends
    with a 429 (https://huggingface.co/docs/hub/rate-limits), or in words, which is all it says of commits an hour
    (quoted in braindecode issue 947)."""
    told = seconds_told(response.headers.get("Retry-After", ""), datetime.now(UTC))
    if told is None and (limit := _NOTHING_LEFT.search(response.headers.get("RateLimit", ""))):
        return float(limit[1])
    if told is None and (asked := _RETRY_IN.search(_message(response))):
        return int(asked[1]) * _UNITS[asked[2]]
    return told


def _message(response: httpx.Response) -> str:
    """What the Hub says in words, in a header or, where it was read, in the body."""
    text = response.headers.get("X-Error-Message") or (response.text if response.is_stream_consumed else "")
    return " ".join(text.split())


def _say_pace(seconds: float) -> None:
    _log.warning("%d commits within an hour, as many as the Hub allows; the next in %.0f s", COMMITS, seconds)


def _said(response: httpx.Response) -> str:
    status = f"{response.status_code} {HTTPStatus(response.status_code).phrase}"
    message = _message(response)
    return f"{status} ({message[:200]})" if message else status


def _address(request: httpx.Request) -> str:
    """Without the query, which may hold a signature."""
    return str(request.url.copy_with(query=None))


def _stays(error: BaseException | None) -> bool:
    """Whether a connection failed for a reason that no repetition changes: a certificate, or a name nobody knows."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        if isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME:
            return True
        error = error.__cause__ or error.__context__
    return False
