"""What a child can do in its sandbox, tried by a child."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from quantpress.machine.child import run_child
from quantpress.machine.sandbox import obstacle

#: Tries each thing and answers with the names of the errors.
TRIES = """
import ctypes, json, os, pathlib, shutil, signal, socket, subprocess, sys, tempfile
job = json.loads(pathlib.Path(sys.argv[1]).read_text())
outside, own, port, left = pathlib.Path(job["outside"]), pathlib.Path(job["own"]), job["port"], job["process"]

def make(folder):
    (folder / "made").mkdir()
    (folder / "made" / "file").write_text("x")
    os.rename(folder / "made" / "file", folder / "file")
    os.link(folder / "file", folder / "made" / "link")
    shutil.rmtree(folder / "made")
    (folder / "file").unlink()

def shared_memory():
    with open("/dev/shm/quantpress-test", "w") as stream:
        stream.write("x")
    os.unlink("/dev/shm/quantpress-test")

tries = {
    "write in the job's folder": lambda: make(pathlib.Path.cwd()),
    "write in a folder of the job": lambda: make(own),
    "write a temporary file": lambda: make(pathlib.Path(tempfile.mkdtemp())),
    "write shared memory": shared_memory,
    "write to a device": lambda: open("/dev/null", "w").write("x"),
    "read elsewhere": lambda: (outside / "theirs").read_text(),
    "start a program": lambda: subprocess.run(["true"], check=True),
    "talk to itself": lambda: socket.socketpair(),
    "make a file elsewhere": lambda: (outside / "new").write_text("x"),
    "write a file elsewhere": lambda: (outside / "theirs").write_text("x"),
    "empty a file elsewhere": lambda: os.truncate(outside / "theirs", 0),
    "remove a file elsewhere": lambda: (outside / "theirs").unlink(),
    "move a file in": lambda: os.rename(outside / "theirs", own / "mine"),
    "write elsewhere by a program": lambda: subprocess.run(["cp", "/dev/null", outside / "theirs"], check=True),
    "connect": lambda: socket.create_connection(("127.0.0.1", port)),
    "send a datagram": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", port)),
    "listen": lambda: socket.create_server(("::1", 0), family=socket.AF_INET6),
    "kill a process outside": lambda: os.kill(left, signal.SIGKILL),
    "read its environment": lambda: open(f"/proc/{left}/environ", "rb").read(),
}
said = {}
for name, tried in tries.items():
    try:
        tried()
        said[name] = "done"
    except Exception as error:
        said[name] = type(error).__name__
pathlib.Path(sys.argv[2]).write_text(json.dumps({"said": said}))
"""
ALLOWED = [
    "write in the job's folder",
    "write in a folder of the job",
    "write a temporary file",
    "write shared memory",
    "write to a device",
    "read elsewhere",
    "start a program",
    "talk to itself",
]
REFUSED = {
    "make a file elsewhere": "PermissionError",
    "write a file elsewhere": "PermissionError",
    "empty a file elsewhere": "PermissionError",
    "remove a file elsewhere": "PermissionError",
    "move a file in": "PermissionError",
    "write elsewhere by a program": "CalledProcessError",
    "connect": "PermissionError",
    "send a datagram": "PermissionError",
    "listen": "PermissionError",
    "read its environment": "PermissionError",
}


class Tries(BaseModel):
    outside: Path
    own: Path
    port: int
    process: int

    @property
    def writes(self) -> list[Path]:
        return [self.own]


class Said(BaseModel):
    said: dict[str, str]


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder with a file that is not the child's. The tests' files lie where the system's temporary files do, so for
    this test temporary files lie elsewhere."""
    (tmp_path / "tries.py").write_text(TRIES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("quantpress.machine.sandbox._ALWAYS", ("/dev", "/proc", str(tmp_path / "temporary")))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    for name in ("temporary", "outside"):
        (tmp_path / name).mkdir()
    (tmp_path / "outside" / "theirs").write_text("theirs")
    yield tmp_path


def tried(elsewhere: Path) -> dict[str, str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        job = Tries(
            outside=elsewhere / "outside",
            own=elsewhere / "own",
            port=server.getsockname()[1],
            process=other.pid,
        )
        said = run_child("tries", job, Said, elsewhere / "job").said
        said["it still runs"] = str(other.poll() is None)
        other.kill()
        other.wait()
    assert (elsewhere / "outside" / "theirs").exists() or os.environ.get("QUANTPRESS_SANDBOX") == "off"
    return said


@pytest.mark.skipif(obstacle() is not None, reason=f"no sandbox here: {obstacle()}")
def test_a_child_does_its_work_and_nothing_else(elsewhere: Path) -> None:
    said = tried(elsewhere)
    kill, alive = said.pop("kill a process outside"), said.pop("it still runs")
    assert {name: answer for name, answer in said.items() if name in ALLOWED} == dict.fromkeys(ALLOWED, "done")
    assert {name: answer for name, answer in said.items() if name not in ALLOWED} == REFUSED
    assert (elsewhere / "outside" / "theirs").read_text() == "theirs"
    # Landlock knows signals from Linux 6.12.
    assert (kill, alive) in (("PermissionError", "True"), ("done", "False"))


def test_the_operator_turns_it_off(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTPRESS_SANDBOX", "off")
    assert obstacle() == "QUANTPRESS_SANDBOX is off"
    assert tried(elsewhere)["make a file elsewhere"] == "done"


def test_the_doctor_says_whether_children_have_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from quantpress.cli.doctor import _machine
    from quantpress.settings import Settings

    monkeypatch.setattr("quantpress.machine.sandbox._version", lambda: 3)
    (found,) = [each for each in _machine(Settings(home=tmp_path)) if each.name == "sandbox"]
    assert (found.there, found.lacking) == (False, False)
    assert found.detail == "none: the kernel has no Landlock with TCP (Linux 6.7), or a container forbids it"
