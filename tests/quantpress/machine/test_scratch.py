"""A killed command's scratch folders are removed. A living command's folders stay."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from quantpress.machine.scratch import scratch
from quantpress.machine.workspace import remove_abandoned_work, remove_idle_work

HOLD = """
import sys, time
from pathlib import Path
from quantpress.machine.scratch import scratch
with scratch(Path(sys.argv[1]), "verify") as folder:
    (folder / "half-downloaded").write_bytes(b"x")
    print("ready", flush=True)
    time.sleep(600)
"""


def hold(home: Path) -> subprocess.Popen[bytes]:
    """Starts another process that has a folder in use."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(home)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def left(home: Path) -> list[str]:
    return sorted(path.name for path in home.glob("scratch/*/[!.]*"))


def test_a_folder_goes_with_its_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="stop"), scratch(Path("home"), "rebuild") as folder:
        assert folder.is_absolute() and folder.parent == tmp_path / "home" / "scratch"
        assert folder.name.startswith("rebuild-")
        (folder / "file").touch()
        raise ValueError("stop")
    assert list((tmp_path / "home" / "scratch").iterdir()) == []


def test_the_next_one_removes_what_a_killed_process_left_and_nothing_else(tmp_path: Path) -> None:
    killed, living = hold(tmp_path), hold(tmp_path)
    try:
        kill(killed)
        assert left(tmp_path) == ["half-downloaded", "half-downloaded"]
        with scratch(tmp_path, "verify") as folder:
            (folder / "own").touch()
            assert left(tmp_path) == ["half-downloaded", "own"]
    finally:
        kill(living)
    assert left(tmp_path) == ["half-downloaded"]


def test_a_press_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    kill(hold(tmp_path))
    remove_abandoned_work(tmp_path, "a/b", keep="1" * 40)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_night_without_work_removes_it_too(tmp_path: Path) -> None:
    kill(hold(tmp_path))
    remove_idle_work(tmp_path, "a/b")
    assert list((tmp_path / "scratch").iterdir()) == []
