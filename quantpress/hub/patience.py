"""Repeats requests to a Hub that is busy, that is restarting, or that has a bad connection.

This module gives huggingface_hub an HTTP client that repeats every failed request until the Hub answers, for a limited
time. huggingface_hub uses this client for everything. On its own, huggingface_hub repeats only LFS uploads and
listings, five times within 23 s. It does not repeat a commit or the creation of a repo. It ignores a ``Retry-After``
header that holds a date.

We can safely repeat all our requests, because a request that is done twice has the same effect as a request that is
done once:

- If a repo, branch or tag exists, the Hub answers a request to create it with 409. huggingface_hub treats this answer
  as success.
- LFS objects are named by their hash, so a second upload of an object changes nothing.
- A commit names its parent. If the Hub's answer to a commit was lost, the Hub refuses the repetition with 412, because
  the branch has moved on. Then :func:`quantpress.publish.commit.publish` finds that its commit was made.

huggingface_hub 1.x uses the HTTP library httpx, and 2.x uses httpx2. Both libraries have the same API.
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

#: The status codes after which another try can succeed. huggingface_hub's http_backoff repeats after the same codes.
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
#: If a connection brings no byte for this many seconds, the client closes it. After an upload, the Hub answers only
#: when it has hashed the file. The largest file that the Hub accepts has 50 GB. At about 200 MB/s, hashing this file
#: takes 250 s.
_SILENCE = 300.0
_CONNECTING = 15.0
#: huggingface_hub sends this request to huggingface.co to learn the names of AI agents. It needs these names, because
#: the headers of its requests say which agent runs huggingface_hub (utils/_detect_agent.py of 1.33). If nothing
#: answers, huggingface_hub goes on, so we do not repeat this request. On a machine without a network, repeating this
#: request delayed the first request to a local Hub by five minutes.
_ASIDE = "/api/agent-harnesses"
#: A key of a request's ``extensions``. The value is a pair: the file that the request sends as its body, and the
#: position in this file at which the body starts if the request is repeated.
_BODY = "quantpress.body"

_log = logging.getLogger(__name__)


class HubFailed(QuantpressError):
    """Raised if our patience ends and the Hub has not answered a request, or has only asked us to try later.

    ``status`` is the status code of the last answer, or None if the Hub did not answer.
    """

    def __init__(self, message: str, status: int | None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Patience:
    """How long to repeat a request, in seconds.

    ``seconds`` count from the request's first failure. The waits between tries double from ``first_wait`` to
    ``longest_wait``. If the Hub says how long to wait, the limit is ``told`` instead of ``seconds``. The default of
    ``told`` is a little over an hour, because the Hub's rate limit with the longest period is its limit on
    commits per hour (quantpress.hub.limits).
    """

    seconds: float = 300.0
    told: float = 3700.0
    first_wait: float = 0.5
    longest_wait: float = 30.0


def be_patient(patience: Patience) -> None:
    """Makes huggingface_hub repeat failed requests, in the whole process.

    A second call with the same patience changes nothing.
    """
    from huggingface_hub import get_session, set_client_factory

    session = get_session()
    if getattr(session, "patience", None) != patience:
        library, hooks = http_library(), session.event_hooks
        # huggingface_hub can close its client and make a new one. The new client shares ``pace``, because the
        # commits of the old client still count.
        pace = getattr(session, "pace", None) or CommitPace(time.monotonic, time.sleep, _say_pace)
        set_client_factory(lambda: _patient_client(library, patience, hooks, pace))


def http_library() -> ModuleType:
    """Returns the HTTP library that huggingface_hub uses, httpx or httpx2."""
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
    """Whether ``request`` is a commit to huggingface.co.

    We know the limit of commits beforehand only for huggingface.co. Other Hubs report their limit with a 429.
    """
    return (
        request.method == "POST" and "/commit/" in request.url.path and str(request.url).startswith(f"{HUGGING_FACE}/")
    )


def _resumable(library: Any, stream: Any) -> Any:
    """Wraps the body of a download, so that huggingface_hub resumes the download after every broken connection.

    If a connection closes too early, the HTTP library raises RemoteProtocolError, and huggingface_hub resumes the
    download. If a connection is reset, the HTTP library raises ReadError, and huggingface_hub does not resume
    (file_download.http_get). Therefore the wrapper turns a ReadError into a RemoteProtocolError.
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
    """Sends a request until the Hub answers with success or with an error that a repetition cannot change.

    Raises :class:`HubFailed` if the time of ``patience`` runs out first.
    """
    where = f"{request.method} {_address(request)}"
    # Half of a wait is random, so that processes that failed at the same time do not try again at the same time.
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
        status = None if state.outcome.failed else state.outcome.result().status_code
        raise HubFailed(f"{where}: {trouble}{lasted}; {asks(told) if told else 'try again later'}", status)

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
    """Closes the answer of a failed try. After the first try, also sets tenacity's start time.

    tenacity counts the time from the first request, but our patience counts from the first failure.
    """
    if not state.outcome.failed:
        state.outcome.result().close()
    if state.attempt_number == 1:
        state.start_time = state.outcome_timestamp


def _failure(state: Any) -> tuple[str, float | None]:
    """Returns what went wrong, and how many seconds the Hub asks us to wait, or None if the Hub does not say.

    ``state`` is tenacity's RetryCallState.
    """
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
    """Returns a request's address without its query, because the query can hold a signature."""
    return str(request.url.copy_with(query=None))


def _stays(error: BaseException | None) -> bool:
    """Whether a connection failed for a reason that no repetition changes: a bad certificate or an unknown name."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        if isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME:
            return True
        error = error.__cause__ or error.__context__
    return False
