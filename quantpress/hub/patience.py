"""Patience with a Hub that is busy, restarts or is behind a bad line.

The Hub client repeats every request until it is answered, for a bounded time. This sits in the HTTP client that
huggingface_hub uses for everything. The library itself repeats only some requests: LFS uploads and listings, five times
within 23 s. It does not repeat a commit or the creation of a repo. It ignores a ``Retry-After`` that holds a date.

We may repeat all our requests, because a request that is done twice has the same effect as one that is done once:

- If a repo, branch or tag exists, the Hub answers its creation with 409. The library takes that for success.
- LFS objects are named by their hash.
- A commit names its parent. If its answer was lost, the Hub refuses the repetition with 412, because the branch has
  moved on. Then :func:`quantpress.publish.commit.publish` finds the first commit.

huggingface_hub 1.x speaks through httpx, 2.x through httpx2. Both have the same API.
"""

from __future__ import annotations

import logging
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from types import ModuleType, new_class
from typing import TYPE_CHECKING, Any, NoReturn, cast

from tenacity import Retrying, retry_if_exception, retry_if_result, wait_exponential, wait_random_exponential

from quantpress.errors import QuantpressError
from quantpress.hub.limits import COMMITS, CommitPace
from quantpress.hub.told import asks, wait_told, words
from quantpress.settings import HUGGING_FACE

if TYPE_CHECKING:
    import httpx

#: Answers that another try may turn into success. huggingface_hub's http_backoff repeats the same ones.
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
#: After so many seconds without a byte, the client gives up a connection. The Hub answers the end of an upload only
#: when it has hashed the file. Its largest file is 50 GB. At some 200 MB/s, that takes 250 s.
_SILENCE = 300.0
_CONNECTING = 15.0
#: huggingface_hub asks huggingface.co which programs to name in its headers (utils/_detect_agent.py of 1.33). It goes
#: on if nothing answers, so we do not repeat this. On a machine without a network, patience with it delayed the first
#: request to a local Hub by five minutes.
_ASIDE = "/api/agent-harnesses"
#: The key in a request's extensions for its body's file and the position from which a repetition sends it.
_BODY = "quantpress.body"

_log = logging.getLogger(__name__)


class HubFailed(QuantpressError):
    """A Hub did not answer a request, or refused it for now, for longer than our patience."""


@dataclass(frozen=True)
class Patience:
    """How long to repeat a request, in seconds.

    ``seconds`` count from the request's first failure. Waits double from ``first_wait`` to ``longest_wait``. If the Hub
    says how long to wait, we believe it for up to ``told`` seconds in all. That is a little over an hour, because the
    Hub's longest limit counts the commits of one hour (quantpress.hub.limits).
    """

    seconds: float = 300.0
    told: float = 3700.0
    first_wait: float = 0.5
    longest_wait: float = 30.0


def be_patient(patience: Patience) -> None:
    """Makes huggingface_hub's client repeat requests in this process. A second call with the same patience changes
    nothing."""
    from huggingface_hub import get_session, set_client_factory

    session = get_session()
    if getattr(session, "patience", None) != patience:
        library, hooks = http_library(), session.event_hooks
        # The client may be closed and made anew. The commits that it made still count.
        pace = getattr(session, "pace", None) or CommitPace(time.monotonic, time.sleep, _say_pace)
        set_client_factory(lambda: _patient_client(library, patience, hooks, pace))


def http_library() -> ModuleType:
    """Returns the library through which huggingface_hub speaks HTTP."""
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
    """Whether it is a commit to huggingface.co. We know that Hub's limit of commits beforehand. Other Hubs tell theirs
    with a 429."""
    return (
        request.method == "POST" and "/commit/" in request.url.path and str(request.url).startswith(f"{HUGGING_FACE}/")
    )


def _resumable(library: Any, stream: Any) -> Any:
    """Returns a download's body that huggingface_hub can resume after every broken connection.

    A connection that closes too early raises RemoteProtocolError. The library resumes the download after that. A
    connection that is reset raises ReadError. The library does not resume after that (file_download.http_get).
    """

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
    """Sends a request until the Hub answers with success or with an error that stays. Raises :class:`HubFailed`."""
    where = f"{request.method} {_address(request)}"
    # Half of a wait is random, so that presses that failed together do not come back together.
    half = patience.first_wait / 2, patience.longest_wait / 2
    own_wait = wait_exponential(*half) + wait_random_exponential(*half)

    def is_spent(state: Any) -> bool:
        limit = patience.seconds if _failure(state)[1] is None else patience.told
        return bool(state.seconds_since_start + state.upcoming_sleep > limit)

    def begin_again(state: Any) -> None:
        _log.warning("%s: %s; again in %.1f s", where, _failure(state)[0], state.upcoming_sleep)
        if _BODY in request.extensions:
            body, start = request.extensions[_BODY]
            body.seek(start)

    def give_up(state: Any) -> NoReturn:
        (trouble, told), seconds = _failure(state), state.seconds_since_start
        lasted = f", for {seconds:.0f} s" if seconds else ""
        raise HubFailed(f"{where}: {trouble}{lasted}; {asks(told) if told else 'try again later'}")

    return Retrying(
        retry=retry_if_result(lambda response: response.status_code in _PASSING)
        | retry_if_exception(lambda error: isinstance(error, broken) and not _stays(error)),
        after=_note_failure,
        wait=lambda state: max(own_wait(state), _failure(state)[1] or 0.0),
        stop=is_spent,
        before_sleep=begin_again,
        retry_error_callback=give_up,
    )(send)


def _note_failure(state: Any) -> None:
    """Closes an answer that is of no use. Sets tenacity's start time: it counts from the first request, patience from
    the first failure."""
    if not state.outcome.failed:
        state.outcome.result().close()
    if state.attempt_number == 1:
        state.start_time = state.outcome_timestamp


def _failure(state: Any) -> tuple[str, float | None]:
    """Returns what went wrong, and for how long the Hub asks us to wait. ``state`` is tenacity's RetryCallState."""
    if error := state.outcome.exception():
        return str(error) or type(error).__name__, None
    return _said(state.outcome.result()), wait_told(state.outcome.result())


def _say_pace(seconds: float) -> None:
    _log.warning("%d commits within an hour, as many as the Hub allows; the next in %.0f s", COMMITS, seconds)


def _said(response: httpx.Response) -> str:
    status = f"{response.status_code} {HTTPStatus(response.status_code).phrase}"
    message = words(response)
    return f"{status} ({message[:200]})" if message else status


def _address(request: httpx.Request) -> str:
    """Leaves out the query. It may hold a signature."""
    return str(request.url.copy_with(query=None))


def _stays(error: BaseException | None) -> bool:
    """Whether a connection failed for a reason that no repetition changes: a certificate, or an unknown name."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        if isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME:
            return True
        error = error.__cause__ or error.__context__
    return False
