"""Work that nobody goes on with leaves the disk. The work of others stays."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from quantpress.errors import QuantpressError
from quantpress.machine.workspace import Workspace, alone, remove_abandoned_work, remove_idle_work

OLD, NEW = "0" * 40, "1" * 40


def work(home: Path, *names: str) -> None:
    for name in names:
        (home / "work" / name / "gguf").mkdir(parents=True)


def left(home: Path) -> list[str]:
    return sorted(folder.name for folder in (home / "work").iterdir())


def test_work_on_an_older_commit_is_removed_and_that_on_this_one_kept(tmp_path: Path) -> None:
    work(tmp_path, f"a--b-{OLD[:12]}", f"a--b-{NEW[:12]}", f"a--b-c-{OLD[:12]}")
    remove_abandoned_work(tmp_path, "a/b", keep=NEW)
    assert left(tmp_path) == [f"a--b-{NEW[:12]}", f"a--b-c-{OLD[:12]}"]


def test_where_nothing_is_to_do_all_work_on_the_model_is_removed(tmp_path: Path) -> None:
    work(tmp_path, f"a--b-{OLD[:12]}", f"a--b-{NEW[:12]}", f"a--b-c-{OLD[:12]}")
    remove_idle_work(tmp_path, "a/b")
    assert left(tmp_path) == [f"a--b-c-{OLD[:12]}"]


def test_what_a_press_holds_is_left_alone(tmp_path: Path) -> None:
    work(tmp_path, f"a--b-{OLD[:12]}")
    with alone(tmp_path, "a/b", lambda: None):
        remove_idle_work(tmp_path, "a/b")
    assert left(tmp_path) == [f"a--b-{OLD[:12]}"]


def test_without_work_nothing_is_made(tmp_path: Path) -> None:
    remove_idle_work(tmp_path, "a/b")
    assert list(tmp_path.iterdir()) == []


def test_what_is_on_disk_of_a_model_is_counted_and_others_are_not(tmp_path: Path) -> None:
    here = Workspace(tmp_path, "a/b", NEW)
    assert here.bytes_there() == 0
    for file, size in (
        (here.source / "model.safetensors", 700),
        (here.source / ".cache" / "huggingface" / "download" / "half.incomplete", 50),
        (here.work / "gguf" / "prepared-1" / "b-F16.gguf", 4),
        (Workspace(tmp_path, "a/b", OLD).source / "model.safetensors", 3000),
        (Workspace(tmp_path, "a/b-c", NEW).work / "x", 3000),
    ):
        file.parent.mkdir(parents=True)
        file.write_bytes(bytes(size))
    assert here.bytes_there() == 754


def test_a_press_that_goes_on_needs_room_only_for_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Workspace(tmp_path, "a/b", NEW)
    here.source.mkdir(parents=True)
    (here.source / "model.safetensors").write_bytes(bytes(700))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=300))
    here.require_disk(1000)
    with pytest.raises(QuantpressError, match=r"0\.0 GB of disk are needed and 0\.0 GB are free; free some, or set "):
        here.require_disk(1001)
