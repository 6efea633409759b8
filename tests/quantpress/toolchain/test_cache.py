from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from quantpress.toolchain.cache import cache_folder, make_once

# The real build takes minutes, so these tests exercise the lock and the rename with a builder that takes a moment.


def _build_slowly(folder: Path, tally: Path) -> None:
    def make(part: Path) -> None:
        with tally.open("a") as stream:
            stream.write(f"{os.getpid()}\n")
        (part / "half").write_text("half")
        time.sleep(0.3)
        (part / "whole").write_text("whole")

    assert (make_once(folder, make) / "whole").read_text() == "whole"


def test_processes_that_start_at_once_build_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    folder, tally = tmp_path / "tools", tmp_path / "tally"
    processes = [context.Process(target=_build_slowly, args=(folder, tally)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(tally.read_text().splitlines()) == 1
    assert sorted(path.name for path in folder.iterdir()) == ["half", "whole"]


def _hang(folder: Path) -> None:
    def make(part: Path) -> None:
        (part / "half").write_text("half")
        time.sleep(600)

    make_once(folder, make)


def test_what_a_killed_builder_left_is_removed_and_its_lock_is_free(tmp_path: Path) -> None:
    folder = tmp_path / "tools"
    process = multiprocessing.get_context("spawn").Process(target=_hang, args=(folder,))
    process.start()
    while not list(tmp_path.glob(".tools.*.part/half")):
        assert process.is_alive()
        time.sleep(0.05)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()

    _build_slowly(folder, tmp_path / "tally")

    assert list(tmp_path.glob(".tools.*.part")) == []
    assert (folder / "whole").exists()


def test_a_failed_build_leaves_nothing_and_the_next_one_starts_anew(tmp_path: Path) -> None:
    def fail(part: Path) -> None:
        (part / "half").write_text("half")
        raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        make_once(tmp_path / "tools", fail)

    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    assert make_once(tmp_path / "tools", lambda part: None) == tmp_path / "tools"


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTPRESS_CACHE", str(tmp_path / "here"))

    assert cache_folder() == tmp_path / "here"


def test_the_cache_is_otherwise_the_users_and_outside_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QUANTPRESS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert cache_folder().name == "quantpress"
    assert Path(__file__).parents[3] not in cache_folder().parents
