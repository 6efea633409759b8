from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quantpress.errors import ChildFailed
from quantpress.toolchain.run import run_tool


def test_both_outputs_are_returned_and_logged(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said = run_tool(["sh", "-c", "echo one; echo two >&2; pwd"], tmp_path)

    assert said.splitlines() == ["one", "two", str(tmp_path)]
    assert capfd.readouterr().out.splitlines() == ["one", "two", str(tmp_path)]


def test_a_failure_quotes_the_last_lines(tmp_path: Path) -> None:
    with pytest.raises(ChildFailed, match=r"sh failed with exit code 3\n  \| why"):
        run_tool(["sh", "-c", "echo why; exit 3"], tmp_path)


def test_a_killed_tool_is_said_to_be_killed(tmp_path: Path) -> None:
    with pytest.raises(ChildFailed, match="sh was killed by SIGKILL"):
        run_tool(["sh", "-c", "kill -9 $$"], tmp_path)


def test_the_users_defaults_and_tokens_stay_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "7")
    monkeypatch.setenv("LANG", "C.UTF-8")

    said = run_tool(["env"], tmp_path)

    assert "LANG=C.UTF-8" in said.splitlines()
    assert "hf_secret" not in said
    assert "LLAMA_ARG_" not in said


def test_an_exception_of_the_watcher_ends_the_tool(tmp_path: Path) -> None:
    def watch(line: str) -> None:
        raise ValueError(line)

    with pytest.raises(ValueError, match="first"):
        run_tool(["sh", "-c", f"echo first; sleep 1; touch {tmp_path}/late; sleep 600"], tmp_path, watch)

    assert not (tmp_path / "late").exists()


def test_a_tool_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path\n"
        "from quantpress.toolchain.run import run_tool\n"
        "run_tool(['sh', '-c', 'echo $$ > pid.tmp; mv pid.tmp pid; exec sleep 600'], Path('.'))\n"
    )
    root = Path(__file__).parents[3]
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(root)})
    while not (tmp_path / "pid").exists():
        assert parent.poll() is None
        time.sleep(0.05)
    tool = int((tmp_path / "pid").read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()

    for _ in range(200):
        status = Path(f"/proc/{tool}/stat")
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    os.kill(tool, signal.SIGKILL)
    pytest.fail("the tool outlived its parent")
