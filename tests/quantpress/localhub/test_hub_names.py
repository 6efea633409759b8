"""No name from outside leaves its folder."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from quantpress.localhub import names
from quantpress.localhub.errors import HubError

if TYPE_CHECKING:
    from tests.quantpress.localhub.conftest import LiveHub

HOSTILE_PATHS = [
    "", "/", "/etc/passwd", "..", "../x", "a/../b", "a/..", "./a", "a/.", "a//b", "a/", "a\\b", "..\\x", "a\0b",
    "a\nb", "a/\x7f", ".git/config", "a/.GIT/x", "x" * 256, "/".join(["y" * 200] * 6), "\ud800",
]  # fmt: skip

# The pieces are those that can lead out of a folder, so that most examples are near the edge.
piece = st.sampled_from(["..", ".", "/", "\\", "\0", "a", "Ä", ".git", "%2e", "%2F", "~", " ", "\n", "x" * 130])
near_path = st.lists(piece, max_size=8).map("".join) | st.text(max_size=30)


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_hostile_paths_are_refused(path: str) -> None:
    with pytest.raises(HubError):
        names.check_path(path)


@pytest.mark.parametrize("path", ["README.md", "a/b/c.gguf", "..a", "a..b", ".gitattributes", "ä 100%.txt", "-x"])
def test_usual_paths_are_taken(path: str) -> None:
    assert names.check_path(path) == path


@given(near_path)
@example("a/../../b")
def test_an_accepted_path_stays_in_its_folder(path: str) -> None:
    try:
        names.check_path(path)
    except HubError:
        return
    assert "\0" not in path and "\\" not in path
    parts = PurePosixPath("/base", path).parts
    assert parts == ("/", "base", *path.split("/"))
    assert ".." not in parts and "." not in parts


@pytest.mark.parametrize("repo", ["a/b", "HuggingFaceTB/SmolLM2-135M-Instruct", "a_1/b.c-d"])
def test_usual_repo_ids_are_taken(repo: str) -> None:
    assert "/".join(names.check_repo_id(repo)) == repo


@pytest.mark.parametrize(
    "repo",
    ["", "a", "/a", "a/", "a/b/c", "../a", "a/..", "a/.b", "a/b.", "a/b--c", "a/b..c", "a/b.git", "api/models",
     "lfs/x", "a/" + "b" * 97, "a/b\n", "ä/b", "a\\b/c", "a/b\0"],
)  # fmt: skip
def test_hostile_repo_ids_are_refused(repo: str) -> None:
    with pytest.raises(HubError):
        names.check_repo_id(repo)


@pytest.mark.parametrize("name", ["main", "gptq-4bit-128g-actorder_True", "a/b", "v1.0", "ünter"])
def test_usual_refs_are_taken(name: str) -> None:
    assert names.check_ref_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "/a", "a/", "a//b", "..", "a..b", ".a", "a/.b", "a.", "a.lock", "a b", "a~1", "a^", "a:b", "a?", "a*", "a[",
     "a\\b", "a\0", "@", "a@{1}", "-a", "refs/heads/a", "0" * 40, "x" * 201, "\ud800"],
)  # fmt: skip
def test_hostile_refs_are_refused(name: str) -> None:
    with pytest.raises(HubError):
        names.check_ref_name(name)


@pytest.mark.parametrize("oid", ["", "a" * 63, "a" * 65, "A" * 64, "../" + "a" * 61, "a" * 63 + "\n", "g" * 64])
def test_only_a_sha256_names_an_object(oid: str) -> None:
    with pytest.raises(HubError):
        names.check_sha256(oid)


@pytest.mark.parametrize(
    "path",
    ["../../../../etc/passwd", "..%2f..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/hub.sqlite3", "..%5c..%5cx",
     "/etc/passwd", "%2fetc%2fpasswd", "a%00b", "%ff", "hub.sqlite3", "....//hub.sqlite3"],
)  # fmt: skip
def test_no_address_reads_a_file_that_is_not_in_the_tree(live_hub: LiveHub, path: str) -> None:
    for start in ("/press/m/resolve/main/", "/press/m/resolve/", "/press/m/tree/main/", "/press/", "/",
                  "/api/models/press/m/tree/main/"):  # fmt: skip
        answer = live_hub.send("GET", start + path)
        assert answer.status in (400, 404), (start, answer.status)
        assert b"root:" not in answer.body and b"SQLite" not in answer.body


def _outside(root: Path) -> set[Path]:
    return {path for path in root.parent.rglob("*") if root / "objects" not in path.parents}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(near_path)
def test_a_commit_writes_nothing_outside_the_objects(live_hub: LiveHub, path: str) -> None:
    before = _outside(live_hub.hub.root)
    answer = live_hub.add_text(path, "x")
    try:
        names.check_path(path)
    except HubError:
        assert answer.status == 400
    else:
        # The Hub can still refuse a path that is the folder of an earlier example's file.
        assert answer.status == 200 or "cannot be a file and a folder" in answer.json()["error"]
        if answer.status == 200:
            assert live_hub.send("GET", f"/press/m/resolve/main/{quote(path, safe='')}").body == b"x"
    assert _outside(live_hub.hub.root) == before


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(piece, min_size=1, max_size=5).map("".join))
def test_any_name_of_a_branch_is_made_or_refused(live_hub: LiveHub, name: str) -> None:
    before = _outside(live_hub.hub.root)
    address = f"/api/models/press/m/branch/{quote(name, safe='')}"
    made = live_hub.send("POST", address, token=live_hub.write_token, body=json.dumps({}).encode())
    assert made.status in (200, 400, 404), made.body
    if made.status == 200:
        names.check_ref_name(name)
        assert live_hub.send("DELETE", address, token=live_hub.write_token).status == 200
    assert _outside(live_hub.hub.root) == before
