"""The Hub client continues after errors, limits and broken connections. It gives up with one line."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, get_session
from huggingface_hub.lfs import UploadInfo

from quantpress.errors import QuantpressError
from quantpress.files import sha256_of
from quantpress.hub.client import explained, hub_client
from quantpress.hub.limits import COMMITS
from quantpress.hub.patience import Patience, be_patient, http_library
from quantpress.localhub.server import RunningHub
from quantpress.publish.commit import BranchCommit, Outrun, ensure_repo, publish
from quantpress.record.manifest import MANIFEST_FILE
from quantpress.record.sums import SUMS_FILE
from tests.support.line import Fault, Line, Request

#: The embedded Hub takes these bytes as a multipart upload of two parts.
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
    # The file is new each time, because the Hub must not have it already.
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
    """The file changed after it was hashed. The Hub answers 422, and the client's error quotes the upload's address."""
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
    # The test answers in huggingface.co's place, because it must not reach huggingface.co.
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
