"""Work that nobody goes on with leaves the disk; work of others stays."""

from __future__ import annotations

from pathlib import Path

from quantpress.workspace import alone, remove_abandoned_work, remove_idle_work

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
