"""Garbage is collected while clients commit: no commit loses an object."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantpress.localhub import admin
from quantpress.localhub.commits import Add, CommitRequest, commit, found_repo, lfs_entry, regular_entry, require_stored
from quantpress.localhub.database import initialise, reading, writing
from quantpress.localhub.errors import HubError
from quantpress.localhub.history import read_tree, resolve
from quantpress.localhub.repos import get_repo
from quantpress.localhub.storage import ObjectStore


class Garbage:
    """A Hub with one repo, and an object of 11 bytes that no commit has and that is older than a day."""

    def __init__(self, root: Path) -> None:
        initialise(root)
        self.root, self.store = root, ObjectStore(root)
        with writing(root) as db:
            attributes = regular_entry(self.store, ".gitattributes", b"kept\n")
            found_repo(db, "model", "press/m", private=False, author="press", attributes=attributes)
        self.sha256 = self.store.add(b"old garbage")
        os.utime(self.store.path(self.sha256), (0, 0))

    def revive(self) -> None:
        """Commits a file that has the object, as the endpoint does."""
        added = Add(lfs_entry(self.store, "revived.bin", self.sha256, 11))
        with writing(self.root) as db:
            require_stored(self.store, [added])
            commit(db, get_repo(db, "press/m"), CommitRequest("main", "Revive", "", "press", [added]))

    def assert_whole(self) -> list[str]:
        """Asserts that every file of ``main`` has its object. Returns the files' paths."""
        with reading(self.root) as db:
            repo = get_repo(db, "press/m")
            tree = read_tree(db, resolve(db, repo, "main").tree)
        for entry in tree.values():
            assert self.store.size(entry.sha256) == entry.size, entry.path
        return list(tree)


@pytest.fixture
def garbage(tmp_path: Path) -> Garbage:
    return Garbage(tmp_path)


def before_first(patch: pytest.MonkeyPatch, names: list[str], act: Callable[[], None]) -> None:
    """Lets ``act`` happen when one of these methods of Path is first called with an object."""
    begun = threading.Event()

    def patched(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Path, *arguments: Any, **options: Any) -> Any:
            if path.parent.parent.name == "objects" and not begun.is_set():
                begun.set()
                act()
            return original(path, *arguments, **options)

        return call

    for name in names:
        patch.setattr(Path, name, patched(getattr(Path, name)))


def test_an_object_that_is_committed_just_before_its_removal_stays(
    garbage: Garbage, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = threading.Thread(target=garbage.revive)

    def act() -> None:
        client.start()
        client.join(0.5)

    before_first(monkeypatch, ["unlink", "replace", "rename"], act)
    assert admin.collect_garbage(garbage.root) == 0
    client.join()
    assert garbage.assert_whole() == [".gitattributes", "revived.bin"]


def test_a_commit_whose_object_was_just_collected_is_refused(garbage: Garbage) -> None:
    added = Add(lfs_entry(garbage.store, "revived.bin", garbage.sha256, 11))
    os.utime(garbage.store.path(garbage.sha256), (0, 0))  # a day passes before the rest of the request arrives
    assert admin.collect_garbage(garbage.root) == 11
    with pytest.raises(HubError) as caught, writing(garbage.root):
        require_stored(garbage.store, [added])
    assert caught.value.status == 503
    assert garbage.assert_whole() == [".gitattributes"]


def test_what_is_asked_for_while_it_is_collected_is_asked_for_again(garbage: Garbage) -> None:
    assert admin.collect_garbage(garbage.root) == 11
    assert not garbage.store.keep(garbage.sha256, 11)
    with pytest.raises(HubError, match="is not uploaded"):
        garbage.revive()
    garbage.store.add(b"old garbage")
    garbage.revive()
    assert garbage.assert_whole() == [".gitattributes", "revived.bin"]


def test_collections_and_commits_at_once_lose_nothing(garbage: Garbage) -> None:
    done = threading.Event()

    def collect() -> None:
        while not done.is_set():
            admin.collect_garbage(garbage.root)

    collector = threading.Thread(target=collect)
    collector.start()
    committed = 0
    for number in range(40):
        with contextlib.suppress(HubError):
            entry = regular_entry(garbage.store, f"{number}.txt", b"%d" % number)
            os.utime(garbage.store.path(entry.sha256), (0, 0))
            with writing(garbage.root) as db:
                require_stored(garbage.store, [Add(entry)])
                commit(db, get_repo(db, "press/m"), CommitRequest("main", "Add", "", "press", [Add(entry)]))
                committed += 1
    done.set()
    collector.join()
    assert len(garbage.assert_whole()) == 1 + committed > 1
