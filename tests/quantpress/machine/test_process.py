"""Process groups: what is killed, when, and what dies with whom."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import BaseModel

from quantpress.errors import ChildFailed
from quantpress.machine.child import run_child
from quantpress.machine.process import process_group

ROOT = Path(__file__).parents[3]
#: Builds, as ``build.py`` does, with a compiler that writes its number and then hangs.
BUILD = """
from pathlib import Path
from quantpress.toolchain.build import _run
_run(["sh", "-c", "echo $$ > pid.tmp; mv pid.tmp pid; exec sleep 600"], Path("log"), lambda *said: None, "building")
"""
#: A process asks to die with its parent after that parent has died already.
ORPHAN = """
import os, sys, time
from pathlib import Path
from quantpress.machine.process import dies_with_parent
ask, parent = dies_with_parent(), os.getpid()
if os.fork() == 0:
    while os.getppid() == parent:
        time.sleep(0.01)
    Path("asks").touch()
    ask()
    Path("alive").touch()
"""


class Nothing(BaseModel):
    pass


def test_a_group_is_killed_while_its_number_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a process is reaped, the kernel can give its number to a stranger's group. The test cannot wait for that, so
    it looks whether the number is still the child's when the group is killed."""
    taken: list[bool] = []
    kill = os.killpg

    def look(group: int, number: int) -> None:
        taken.append(Path(f"/proc/{group}").exists())
        kill(group, number)

    monkeypatch.setattr("os.killpg", look)
    with pytest.raises(ChildFailed, match="no_such_module"):
        run_child("no_such_module", Nothing(), Nothing, tmp_path)
    assert taken == [True]


def test_all_processes_of_a_group_are_killed(tmp_path: Path) -> None:
    with process_group(["sh", "-c", "sleep 600 & echo $!"], os.environ, tmp_path, subprocess.PIPE) as group:
        assert group.process.stdout is not None
        left = int(group.process.stdout.readline())
        group.process.stdout.close()
        assert group.wait(10)
        assert group.end() == 0
    assert has_ended(left)


def test_waiting_has_an_end_and_ending_tells_the_signal(tmp_path: Path) -> None:
    with process_group(["sleep", "600"], os.environ, tmp_path, subprocess.DEVNULL) as group:
        assert not group.wait(0.05)
        assert group.end() == -signal.SIGKILL
        assert group.end() == -signal.SIGKILL


def test_a_build_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    parent = start(BUILD, tmp_path)
    while not (tmp_path / "pid").exists():
        assert parent.poll() is None
        time.sleep(0.02)
    compiler = int((tmp_path / "pid").read_text())
    parent.kill()
    parent.wait()
    assert has_ended(compiler)


def test_a_process_whose_parent_died_first_dies_too(tmp_path: Path) -> None:
    assert start(ORPHAN, tmp_path).wait(60) == 0
    while not (tmp_path / "asks").exists():
        time.sleep(0.02)
    time.sleep(0.3)
    assert not (tmp_path / "alive").exists()


def start(script: str, folder: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", script], cwd=folder, env=environment)


def has_ended(process: int) -> bool:
    """Whether a process ends within 10 s. A process that ended and that nobody reaped counts too."""
    status = Path(f"/proc/{process}/stat")
    for _ in range(200):
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    os.kill(process, signal.SIGKILL)
    return False
