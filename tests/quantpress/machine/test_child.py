"""Child processes: what an operator reads when a child fails, and what a child never gets to see."""

from __future__ import annotations

import os
import shutil
import textwrap
from pathlib import Path

import pytest
from pydantic import BaseModel

from quantpress.errors import ChildFailed
from quantpress.machine.child import begun, finished, run_child
from quantpress.machine.watch import Limits

SECRET = [
    "HF_TOKEN",
    "GITHUB_TOKEN",
    "MY_SECRET",
    "DB_PASSWORD",
    "AWS_SECRET_ACCESS_KEY",
    "OPENAI_API_KEY",
    "PREFECT_API_KEY",
    "GITHUB_PAT",
    "DATABASE_URL",
    "DB_PASS",
    "SSH_AUTH_SOCK",
    "HTTPS_PROXY",
    "PIP_INDEX_URL",
    "UNHEARD_OF",
]


class Question(BaseModel):
    number: int


class Answer(BaseModel):
    number: int
    environment: list[str] = []
    token: str | None = None
    policy: str | None = None


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module to run as a child. It answers, crashes, is killed or hangs, depending on the number that it gets."""
    (tmp_path / "asked.py").write_text(
        textwrap.dedent("""
        import json, os, pathlib, signal, sys, time
        number = json.loads(pathlib.Path(sys.argv[1]).read_text())["number"]
        print("line one")
        print("working on", number)
        if number == 1: raise RuntimeError("no such luck")
        if number == 2: os.kill(os.getpid(), signal.SIGKILL)
        if number == 3: time.sleep(600)
        if number == 5:
            from quantpress.machine.child import explained_exit
            from quantpress.errors import Refused
            with explained_exit():
                raise Refused("the width 575 is odd: take another")
        if number == 8:
            from quantpress.machine.child import explained_exit
            from quantpress.errors import ChildFailed
            with explained_exit():
                raise ChildFailed("llama-imatrix was killed by SIGABRT")
        if number == 6: pathlib.Path(sys.argv[2]).write_text('{"number": null}')
        if number not in (4, 6):
            answer = {"number": number + 1, "environment": sorted(os.environ)}
            if number == 10:
                from huggingface_hub import get_token
                answer["token"] = get_token()
                answer["policy"] = os.environ.get("OMP_WAIT_POLICY")
            pathlib.Path(sys.argv[2]).write_text(json.dumps(answer))
        """)
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    return "asked"


def test_an_answer_comes_back_and_is_found_again(module: str, tmp_path: Path) -> None:
    job = Question(number=41)
    assert finished(job, Answer, tmp_path / "job") is None
    assert run_child(module, job, Answer, tmp_path / "job").number == 42
    again = finished(job, Answer, tmp_path / "job")
    assert again is not None and again.number == 42
    assert finished(Question(number=40), Answer, tmp_path / "job") is None


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (1, "RuntimeError: no such luck (asked failed with exit code 1, log: "),
        (2, "asked was killed by SIGKILL"),
        (4, "asked failed with exit code 0"),
    ],
)
def test_a_failure_quotes_the_last_lines(module: str, tmp_path: Path, number: int, said: str) -> None:
    with pytest.raises(ChildFailed) as caught:
        run_child(module, Question(number=number), Answer, tmp_path / "job")
    assert str(caught.value).startswith(said)
    assert f"| working on {number}" in str(caught.value)
    assert finished(Question(number=number), Answer, tmp_path / "job") is None


def test_a_child_that_knows_why_says_so_in_one_line(module: str, tmp_path: Path) -> None:
    with pytest.raises(ChildFailed) as caught:
        run_child(module, Question(number=5), Answer, tmp_path / "job")
    assert str(caught.value) == "the width 575 is odd: take another"
    assert begun(Question(number=5), tmp_path / "job")
    assert not begun(Question(number=7), tmp_path / "job")


def test_the_whole_log_of_a_failed_child_is_kept_and_named(module: str, tmp_path: Path) -> None:
    """The log outlives a second try in the same folder, and the folder."""
    home = tmp_path / "home"
    (home / "locks").mkdir(parents=True)
    job = home / "work" / "up--Model-1234" / "gguf" / "Q8_0-5678"
    said = []
    for number in (1, 8, 6):
        with pytest.raises(ChildFailed) as caught:
            run_child(module, Question(number=number), Answer, job)
        said.append(str(caught.value))
    with pytest.raises(ChildFailed):
        run_child(module, Question(number=5), Answer, job)
    shutil.rmtree(home / "work")

    kept = sorted((home / "logs").iterdir())
    assert [path.name[26:] for path in kept] == ["up--Model-1234--gguf--Q8_0-5678.log"] * 4
    assert [f"working on {number}" in path.read_text() for number, path in zip((1, 8, 6, 5), kept, strict=True)] == [
        True
    ] * 4
    assert "Traceback" in kept[0].read_text()
    assert all(str(path) in message for path, message in zip(kept, said, strict=False))
    assert said[1] == f"llama-imatrix was killed by SIGABRT\n  log: {kept[1]}"


def test_a_result_that_is_none_is_one_line_and_not_found_again(module: str, tmp_path: Path) -> None:
    with pytest.raises(ChildFailed) as caught:
        run_child(module, Question(number=6), Answer, tmp_path / "job")
    assert str(caught.value) == (
        f"asked wrote an invalid Answer (number: Input should be a valid integer) (log: {tmp_path / 'job' / 'log.txt'})"
    )
    assert finished(Question(number=6), Answer, tmp_path / "job") is None


def test_a_child_that_hangs_is_ended(module: str, tmp_path: Path) -> None:
    with pytest.raises(ChildFailed) as caught:
        run_child(module, Question(number=3), Answer, tmp_path / "job", Limits(seconds=1))
    log = tmp_path / "job" / "log.txt"
    assert str(caught.value) == f"asked was ended because it ran longer than 1 s (log: {log})"


def test_no_token_reaches_a_child(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child gets no token from the environment, and none that `hf auth login` stored."""
    (tmp_path / "huggingface").mkdir()
    (tmp_path / "huggingface" / "token").write_text("hf_stored_secret")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    for name in SECRET:
        monkeypatch.setenv(name, "hf_secret")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    answer = run_child(module, Question(number=10), Answer, tmp_path / "job")
    assert {"PATH", "HF_HOME", "TOKENIZERS_PARALLELISM"} <= set(answer.environment)
    assert set(SECRET) & set(answer.environment) == set()
    assert answer.token is None
    written = "".join(path.read_text() for path in (tmp_path / "job").iterdir() if path.name != "result.json")
    assert "secret" not in written


@pytest.mark.parametrize(("chosen", "policy"), [(None, "passive"), ("active", "active")])
def test_threads_of_a_child_wait_asleep_unless_the_user_says_otherwise(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str | None, policy: str
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if chosen:
        monkeypatch.setenv("OMP_WAIT_POLICY", chosen)
    assert run_child(module, Question(number=10), Answer, tmp_path / "job").policy == policy
