"""The Hub client continues after errors, limits and broken connections. It gives up with one line."""

from __future__ import annotations

import http.server
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, get_session
from huggingface_hub.lfs import UploadInfo
from hypothesis import given
from hypothesis import strategies as st

from quantpress.errors import QuantpressError
from quantpress.files import sha256_of
from quantpress.hub.client import explained, hub_client
from quantpress.hub.limits import COMMITS
from quantpress.hub.patience import Patience, be_patient, http_library
from quantpress.hub.told import seconds_told
from quantpress.localhub.server import RunningHub
from quantpress.publish.commit import BranchCommit, Outrun, ensure_repo, publish
from quantpress.record.manifest import MANIFEST_FILE
from quantpress.record.sums import SUMS_FILE
from tests.support.line import Fault, Line, Request

#: Two parts of the embedded Hub's multipart uploads.
LARGE = random.Random(3).randbytes(9_000_000)


@pytest.fixture
def api(hub: RunningHub, line: Line, monkeypatch: pytest.MonkeyPatch) -> HfApi:
    monkeypatch.setenv("HF_TOKEN", hub.create_token("press", "write"))
    api = hub_client(line.endpoint)
    be_patient(Patience(seconds=20, first_wait=0.01))
    return api


@pytest.fixture
def repo() -> str:
    return f"press/m-{uuid.uuid4()}"


def once(*plan: tuple[Callable[[Request], bool], Fault]) -> Callable[[Request], Fault | None]:
    """Each fault happens to the first request that meets its condition."""
    left = list(plan)

    def decide(request: Request) -> Fault | None:
        for entry in left:
            if entry[0](request):
                left.remove(entry)
                return entry[1]
        return None

    return decide


def of_kind(kind: str) -> Callable[[Request], bool]:
    return lambda request: request.kind == kind


def revision(tmp_path: Path, text: bytes = b"sums") -> BranchCommit:
    large = tmp_path / "large.bin"
    # The Hub must not have it already.
    large.write_bytes(uuid.uuid4().bytes + LARGE)
    return BranchCommit("main", {"large.bin": large, MANIFEST_FILE: b"{}", SUMS_FILE: text})


@pytest.mark.parametrize(
    "trouble", product(["upload", "commit", "other"], Fault), ids=lambda trouble: f"{trouble[0]} {trouble[1].name}"
)
def test_a_revision_is_published_once_whatever_happens_to_a_request(
    repo: str, api: HfApi, hub: RunningHub, line: Line, tmp_path: Path, trouble: tuple[str, Fault]
) -> None:
    kind, fault = trouble
    line.decide = once((of_kind(kind), fault), (of_kind(kind), fault))
    heads = ensure_repo(api, repo, False)
    head = publish(api, repo, revision(tmp_path), heads, "one")
    assert line.faults() == [fault, fault]
    direct = HfApi(endpoint=hub.endpoint)
    assert [commit.title for commit in direct.list_repo_commits(repo)] == ["one", "initial commit"]
    assert direct.model_info(repo).sha == head
    (info,) = direct.get_paths_info(repo, "large.bin")
    assert info.lfs.sha256 == sha256_of(tmp_path / "large.bin")


@pytest.mark.parametrize("fault", list(Fault))
def test_a_download_is_whole_whatever_happens_to_it(
    repo: str, api: HfApi, line: Line, tmp_path: Path, fault: Fault
) -> None:
    publish(api, repo, revision(tmp_path), ensure_repo(api, repo, False), "one")
    line.decide = once(*[(of_kind("download"), fault)] * 2)
    path = Path(api.hf_hub_download(repo, "large.bin", cache_dir=tmp_path / "cache"))
    assert path.read_bytes() == (tmp_path / "large.bin").read_bytes()
    assert line.faults() == [fault] * 2


def test_anothers_commit_is_not_taken_for_the_one_whose_answer_was_lost(
    repo: str, api: HfApi, line: Line, tmp_path: Path
) -> None:
    heads = ensure_repo(api, repo, False)
    publish(api, repo, revision(tmp_path, b"theirs"), heads, "theirs")
    with pytest.raises(Outrun):
        publish(api, repo, revision(tmp_path, b"ours"), heads, "ours")
    assert [commit.title for commit in api.list_repo_commits(repo)] == ["theirs", "initial commit"]


@pytest.mark.parametrize("branch", ["main", "4bit"])
def test_the_first_commit_of_a_branch_is_ones_own_though_its_answer_was_lost(
    repo: str, api: HfApi, line: Line, branch: str
) -> None:
    ensure_repo(api, repo, False)
    line.decide = once((of_kind("commit"), Fault.LOSE_ANSWER))
    begun = BranchCommit(branch, {MANIFEST_FILE: b"{}", SUMS_FILE: b"sums"})
    head = publish(api, repo, begun, heads={}, message="one")
    assert line.faults() == [Fault.LOSE_ANSWER]
    commits = api.list_repo_commits(repo, revision=branch)
    assert [commit.title for commit in commits] == ["one", "initial commit"]
    assert commits[0].commit_id == head


def test_branches_and_repos_are_made_once(repo: str, api: HfApi, line: Line) -> None:
    line.decide = once(*[(lambda request: request.method == "POST", Fault.LOSE_ANSWER)] * 2)
    api.create_repo(repo, exist_ok=True)
    line.decide = once((lambda request: "/branch/" in request.path, Fault.LOSE_ANSWER))
    api.create_branch(repo, branch="4bit", exist_ok=True)
    line.decide = once((lambda request: "/tag/" in request.path, Fault.LOSE_ANSWER))
    api.create_tag(repo, tag="v1", exist_ok=True)
    refs = api.list_repo_refs(repo)
    assert [ref.name for ref in refs.branches] == ["main", "4bit"]
    assert [ref.name for ref in refs.tags] == ["v1"]


def test_a_dead_hub_is_one_line_after_a_bounded_time(line: Line) -> None:
    api = hub_client(line.endpoint, 1)
    line.decide = lambda _: Fault.BUSY
    with pytest.raises(QuantpressError) as caught, explained(api.endpoint, "looking up a/b"):
        api.model_info("a/b")
    (text,) = str(caught.value).splitlines()
    assert text.startswith(f"looking up a/b on {line.endpoint}: GET {line.endpoint}/api/models/a/b: 503 ")
    assert text.endswith("; try again later")
    assert len(line.seen) >= 2


def test_a_failed_upload_is_one_line(repo: str, api: HfApi, hub: RunningHub, line: Line, tmp_path: Path) -> None:
    heads = ensure_repo(api, repo, False)
    api = hub_client(line.endpoint, 0)
    line.decide = lambda request: Fault.BUSY if request.kind == "upload" else None
    with pytest.raises(
        QuantpressError, match=r"^publishing press/m-.*@main on .*: PUT .*: 503 Service Unavailable"
    ) as caught:
        publish(api, repo, revision(tmp_path), heads, "one")
    assert "signature" not in str(caught.value)
    assert len(HfApi(endpoint=hub.endpoint).list_repo_commits(repo)) == 1


def test_a_refused_upload_is_told_without_its_signature(repo: str, api: HfApi) -> None:
    """The file changed after it was hashed. The Hub answers 422, and the client quotes the upload's address."""
    api.create_repo(repo)
    operation = CommitOperationAdd("Model-Q8_0.gguf", LARGE)
    operation.upload_info = UploadInfo.from_bytes(LARGE[::-1])
    with pytest.raises(QuantpressError) as caught, explained(api.endpoint, f"publishing {repo}@main"):
        api.create_commit(repo, [operation], commit_message="one")
    assert str(caught.value) == (
        f"publishing {repo}@main on {api.endpoint}: Client error '422 Unprocessable Entity' for url "
        f"'{api.endpoint}/lfs/{operation.upload_info.sha256.hex()}/complete'"
    )


def test_what_the_client_asks_for_its_own_sake_is_asked_once(api: HfApi, line: Line) -> None:
    """The client asks huggingface.co which programs to name in its headers, and goes on if nothing answers.

    A press that never uses huggingface.co must not wait for this.
    """
    line.decide = lambda request: Fault.BUSY if request.path == "/api/agent-harnesses" else None
    assert get_session().get(f"{api.endpoint}/api/agent-harnesses").status_code == 503
    assert line.faults() == [Fault.BUSY]


@pytest.mark.timeout(120)
def test_an_embedded_hub_takes_any_number_of_commits_at_once(repo: str, api: HfApi) -> None:
    api.create_repo(repo)
    for number in range(COMMITS + 5):
        operation = CommitOperationAdd("n", str(number).encode())
        api.create_commit(repo, [operation], commit_message=str(number))
    assert len(api.list_repo_commits(repo)) == COMMITS + 6


def test_commits_to_huggingface_co_wait_for_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    # This test must not reach huggingface.co, so it answers in its place.
    library = http_library()
    monkeypatch.setattr(
        library.HTTPTransport, "handle_request", lambda _, request: library.Response(200, request=request)
    )
    hub_client("https://huggingface.co")
    waits: list[float] = []
    monkeypatch.setattr(get_session().pace, "sleep", waits.append)
    for _ in range(COMMITS):
        get_session().post("https://huggingface.co/api/models/press/m/commit/main")
    get_session().post("https://huggingface.co/api/models/press/m/branch/4bit")
    assert waits == []
    get_session().post("https://huggingface.co/api/models/press/m/commit/4bit")
    assert [round(wait / 60) for wait in waits] == [60]


@contextmanager
def hub_that_answers(*answers: tuple[int, dict[str, str]]) -> Iterator[str]:
    """Each request gets the next answer. The last answer repeats. Bodies are ``{}``."""
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
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)
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
