"""Commits, refs and git's ids."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from quantpress.localhub import gitobjects

if TYPE_CHECKING:
    from tests.quantpress.localhub.conftest import LiveHub


def git(folder: Path, *arguments: str, stdin: bytes | None = None) -> str:
    command = ["git", "-c", "core.autocrlf=false", "-c", "init.defaultBranch=main", *arguments]
    return subprocess.run(command, cwd=folder, input=stdin, check=True, capture_output=True).stdout.decode().strip()


def test_ids_are_those_of_git(tmp_path: Path) -> None:
    files = {"a.txt": b"one", "a/b.txt": b"two", "a/c/d.txt": b"", "a-b/x": b"\0", "ä/ö": b"three"}
    git(tmp_path, "init", "-q")
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    git(tmp_path, "add", ".")
    blobs = {path: gitobjects.blob_id(content) for path, content in files.items()}
    assert blobs["a/b.txt"] == git(tmp_path, "hash-object", "a/b.txt")
    ids = gitobjects.tree_ids(blobs)
    assert ids[""] == git(tmp_path, "write-tree")
    assert ids["a"] == git(tmp_path, "write-tree", "--prefix=a/")
    assert ids["a/c"] == git(tmp_path, "write-tree", "--prefix=a/c/")
    raw = f"tree {ids['']}\nauthor p <p@localhub> 5 +0000\ncommitter p <p@localhub> 5 +0000\n\nHello\n"
    expected = git(tmp_path, "hash-object", "-t", "commit", "--stdin", stdin=raw.encode())
    assert gitobjects.commit_id(tree=ids[""], parent=None, author="p", seconds=5, message="Hello") == expected


def paths(hub: LiveHub, repo: str, revision: str = "main") -> list[str]:
    answer = hub.send("GET", f"/api/models/press/{repo}/tree/{revision}?recursive=true")
    return [item["path"] for item in answer.json() if item["type"] == "file"]


def text(path: str, content: str) -> dict[str, Any]:
    return {"key": "file", "value": {"path": path, "content": content, "encoding": "utf-8"}}


def test_a_commit_that_changes_nothing_is_not_made(live_hub: LiveHub) -> None:
    live_hub.create("same")
    first = live_hub.add_text("a.txt", "one", "press/same").json()["commitOid"]
    assert live_hub.add_text("a.txt", "one", "press/same").json()["commitOid"] == first
    assert len(live_hub.send("GET", "/api/models/press/same/commits/main").json()) == 2


def test_one_bad_operation_stops_the_whole_commit(live_hub: LiveHub) -> None:
    live_hub.create("whole")
    for bad in (
        {"key": "deletedFile", "value": {"path": "absent"}},
        {"key": "deletedFolder", "value": {"path": "absent/"}},
        {"key": "lfsFile", "value": {"path": "x", "algo": "sha256", "oid": "1" * 64}},
        {"key": "unknown", "value": {}},
        {"key": "file", "value": {"path": "x", "content": "?", "encoding": "base64"}},
        text("a.txt/below", "a.txt cannot be a folder as well"),
        text(".gitattributes/below", "nor can a file that was there"),
    ):
        answer = live_hub.commit(text("a.txt", "one"), bad, repo="press/whole")
        assert answer.status in (400, 404), bad
        assert paths(live_hub, "whole") == [".gitattributes"]


def test_operations_of_one_commit(live_hub: LiveHub) -> None:
    live_hub.create("many")
    live_hub.commit(text("a.txt", "a"), text("d/b.txt", "b"), text("d/c.txt", "c"), repo="press/many")
    live_hub.commit(
        {"key": "copyFile", "value": {"path": "e/copy.txt", "srcPath": "a.txt"}},
        {"key": "deletedFolder", "value": {"path": "d/"}},
        {"key": "deletedFile", "value": {"path": "a.txt"}},
        repo="press/many",
    )
    assert paths(live_hub, "many") == [".gitattributes", "e/copy.txt"]
    assert live_hub.send("GET", "/press/many/resolve/main/e/copy.txt").body == b"a"


def test_commits_go_to_branches_only(live_hub: LiveHub) -> None:
    live_hub.create("branches")
    sha = live_hub.send("GET", "/api/models/press/branches").json()["sha"]
    live_hub.send("POST", "/api/models/press/branches/tag/main", token=live_hub.write_token, tag="v1")
    for revision, status in (("v1", 400), (sha, 400), ("absent", 404), ("refs%2Fheads%2Fmain", 200)):
        answer = live_hub.commit(text("a.txt", "one"), repo="press/branches", revision=revision)
        assert answer.status == status, revision
    refused = live_hub.send("DELETE", "/api/models/press/branches/branch/main", token=live_hub.write_token)
    assert refused.status == 400


@pytest.mark.parametrize("body", [b"", b"[]\n", b"{\n", b'{"key": "header"}\n', b'{"key": "header", "value": {}}\n'])
def test_a_broken_commit_is_a_bad_request(live_hub: LiveHub, body: bytes) -> None:
    answer = live_hub.send("POST", "/api/models/press/m/commit/main", token=live_hub.write_token, body=body)
    assert answer.status == 400 and answer.json()["error"]
