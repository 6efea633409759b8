"""The Hub client waits as long as a Hub asks, within bounds. It repeats a request until its patience ends."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import get_session
from hypothesis import given
from hypothesis import strategies as st

from quantpress.errors import QuantpressError
from quantpress.hub.client import explained, hub_client
from quantpress.hub.patience import Patience, be_patient, http_library
from quantpress.hub.told import seconds_told


@contextmanager
def hub_that_answers(*answers: tuple[int, dict[str, str]]) -> Iterator[str]:
    """A Hub that gives each request the next answer. The last answer repeats. All bodies are ``{}``."""
    left = list(answers)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            for name, value in ({"Content-Length": "2", "Content-Type": "application/json"} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("asked", "advice"),
    [
        ({"Retry-After": "7200"}, "it asks to wait 7200 s"),
        ({"Retry-After": "9" * 5000}, "it asks to wait a day or more"),
        ({"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}, "it asks to wait a day or more"),
        ({"Retry-After": "Fri, 31 Dec 9999 23:59:59 -2359"}, "it asks to wait a day or more"),
        ({"RateLimit": '"api";r=0;t=7200'}, "it asks to wait 7200 s"),
        ({"RateLimit": f'"api";r=0;t={"9" * 5000}'}, "it asks to wait a day or more"),
        ({"X-Error-Message": "Busy. You can retry this action in about 2 hours."}, "it asks to wait 7200 s"),
        ({"X-Error-Message": "Busy. You can retry this action in 9999999 hours."}, "it asks to wait a day or more"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_wait_beyond_any_limit_of_the_hub_is_not_waited_for(asked: dict[str, str], advice: str) -> None:
    said = {"X-Error-Message": "Busy"} | asked
    with hub_that_answers((429, said)) as endpoint:
        api = hub_client(endpoint, 20)
        with pytest.raises(QuantpressError) as caught, explained(endpoint, "asking"):
            api.whoami(token="hf_x")
    assert str(caught.value) == (
        f"asking on {endpoint}: GET {endpoint}/api/whoami-v2: 429 Too Many Requests "
        f"({said['X-Error-Message']}); {advice}"
    )


@pytest.mark.parametrize(
    "absurd", ["Mon, 01 Jan 2030 00:00:" + "9" * 20 + " GMT", "Mon, 01 Jan 2030 00:00:00 +" + "9" * 20]
)
def test_an_absurd_wait_is_taken_for_none(absurd: str, caplog: pytest.LogCaptureFixture) -> None:
    with hub_that_answers((503, {"Retry-After": absurd}), (200, {})) as endpoint:
        api = hub_client(endpoint)
        be_patient(Patience(seconds=5, first_wait=0.01))
        assert api.whoami(token="hf_x") == {}
    (line,) = [record.getMessage() for record in caplog.records if record.name == "quantpress.hub.patience"]
    assert line == f"GET {endpoint}/api/whoami-v2: 503 Service Unavailable ({{}}); again in 0.0 s"


def test_patience_counts_from_the_first_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    library, answers = http_library(), iter([503, 200])

    def answer_slowly(_: object, request: Any) -> Any:
        time.sleep(0.6)
        return library.Response(next(answers), request=request)

    monkeypatch.setattr(library.HTTPTransport, "handle_request", answer_slowly)
    be_patient(Patience(seconds=0.5, first_wait=0.01))
    assert get_session().get("http://hub.test/").status_code == 200


def test_waits_double_and_half_of_each_is_random(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    # Only tenacity gets another module ``time``, because other threads of the test process sleep too.
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=waits.append))
    with hub_that_answers(*[(503, {})] * 7, (503, {"Retry-After": "100"}), (200, {})) as endpoint:
        api = hub_client(endpoint)
        assert api.whoami(token="hf_x") == {}
    longest = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert all(most / 2 <= wait <= most for wait, most in zip(waits, longest, strict=False))
    assert any(wait not in (most / 2, most) for wait, most in zip(waits, longest, strict=False))
    assert waits[7:] == [100.0]


def test_a_wait_that_the_hub_asks_for_in_words_is_waited_for() -> None:
    said = {"X-Error-Message": "You can retry this action in 1 second."}
    with hub_that_answers((429, said), (429, said), (200, {})) as endpoint:
        api = hub_client(endpoint)
        be_patient(Patience(seconds=0.5, first_wait=0.01))
        # Two seconds are longer than the patience, but the Hub asked to wait.
        assert api.whoami(token="hf_x") == {}


NOW = datetime(2015, 10, 21, 7, 28, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Wed, 21 Oct 2015 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2015 07:28:30 -0000", 30.0),
        ("Wednesday, 21-Oct-15 07:29:00 GMT", 60.0),
        ("Wed, 21 Oct 2015 07:00:00 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("9" * 5000, 86400.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86400.0),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 86400.0),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
        ("Wed, 21 Oct 2015 07:28:" + "9" * 20 + " GMT", None),
        ("Wed, 21 Oct 2015 07:28:30 +" + "9" * 20, None),
    ],
    ids=lambda value: str(value)[:60],
)
def test_retry_after(header: str, seconds: float | None) -> None:
    assert seconds_told(header, NOW) == seconds


@given(st.text())
def test_any_retry_after_is_a_wait_or_nothing(header: str) -> None:
    told = seconds_told(header, NOW)
    assert told is None or 0 <= told <= 86400
