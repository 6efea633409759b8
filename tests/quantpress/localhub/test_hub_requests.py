"""Requests that are wrong in ways no client of huggingface_hub is: each gets an answer that says so."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from quantpress.localhub import admin, auth
from quantpress.localhub.database import initialise

if TYPE_CHECKING:
    from tests.quantpress.localhub.conftest import LiveHub

DIGITS = "9" * 5_000
HALF = "\ud800"


@pytest.mark.parametrize("limit", [DIGITS, "x", "-1", "1e3", "%D9%A3", "1.5"])
@pytest.mark.parametrize("listing", ["/api/models", "/api/datasets", "/api/collections"])
def test_a_limit_is_a_short_number(live_hub: LiveHub, listing: str, limit: str) -> None:
    assert live_hub.send("GET", f"{listing}?limit={limit}").status == 400
    assert live_hub.send("GET", f"{listing}?limit=1").status == 200


@pytest.mark.parametrize(
    "fields",
    [{"paths": [[1]]}, {"paths": [{"a": 1}]}, {"paths": {"a": 1}}, {"paths": [1]}, {"expand": [True]}],
)
def test_paths_are_texts(live_hub: LiveHub, fields: dict[str, Any]) -> None:
    address = "/api/models/press/m/paths-info/main"
    body, headers = json.dumps(fields).encode(), {"Content-Type": "application/json"}
    assert live_hub.send("POST", address, body=body, headers=headers).status == 400


@pytest.mark.parametrize("fields", [{}, {"expand": []}, {"expand": None}, {"paths": [], "expand": True}])
def test_fields_may_be_missing_or_empty(live_hub: LiveHub, fields: dict[str, Any]) -> None:
    body, headers = json.dumps(fields).encode(), {"Content-Type": "application/json"}
    answer = live_hub.send("POST", "/api/models/press/m/paths-info/main", body=body, headers=headers)
    assert (answer.status, answer.json()) == (200, [])


def test_the_pointer_of_a_large_file_is_no_file(live_hub: LiveHub) -> None:
    """Git gives the pointer and the large file one id, so a tree with the pointer would stand for the file's tree."""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 11000000\n"
    refused = live_hub.commit({"key": "file", "value": {"path": "tokenizer.json", "content": pointer}})
    assert refused.status == 400
    assert "upload the file itself" in str(refused.json())
    text = {"path": "notes.txt", "content": f"{pointer}That is a pointer.\n"}
    assert live_hub.commit({"key": "file", "value": text}).status == 200


def test_half_of_a_surrogate_pair_is_refused(live_hub: LiveHub) -> None:
    token = live_hub.write_token
    for header in ({"summary": HALF}, {"summary": "x", "description": HALF}, {"summary": "x", "parentCommit": HALF}):
        body = json.dumps({"key": "header", "value": header}).encode()
        answer = live_hub.send("POST", "/api/models/press/m/commit/main", token=token, body=body)
        assert answer.status == 400, header
    assert live_hub.commit({"key": "file", "value": {"path": "a", "content": HALF}}).status == 400
    for address, fields in (
        ("/api/models/press/m/tag/main", {"tag": "half", "message": HALF}),
        ("/api/collections", {"title": HALF}),
        ("/api/repos/create", {"name": HALF}),
        ("/api/validate-yaml", {"content": HALF}),
    ):
        assert live_hub.send("POST", address, token=token, **fields).status == 400, address


def _collection(hub: LiveHub, title: str, *repos: str, **fields: Any) -> str:
    made = hub.send("POST", "/api/collections", token=hub.write_token, title=title, **fields).json()
    for repo in repos:
        item = {"type": "model", "id": repo}
        added = hub.send("POST", f"/api/collections/{made['slug']}/items", token=hub.write_token, item=item)
        assert added.status == 200, added.body
    return str(made["slug"])


def test_collections_do_not_tell_of_private_repos(live_hub: LiveHub) -> None:
    for name in ("hidden", "open"):
        live_hub.create(name)
    slug = _collection(live_hub, "Mixed", "press/hidden", "press/open")
    admin.set_private(live_hub.hub.root, "press/hidden", True)

    def listed(item: str, token: str | None) -> list[str]:
        answer = live_hub.send("GET", f"/api/collections?item=models/press/{item}", token=token)
        return [each["slug"] for each in answer.json()]

    assert listed("hidden", live_hub.read_token) == [slug]
    assert listed("hidden", None) == listed("absent", None) == []
    assert listed("open", None) == [slug]
    items = live_hub.send("GET", f"/api/collections/{slug}").json()["items"]
    assert [(item["id"], item["position"]) for item in items] == [("press/open", 0)]


def test_a_private_collection_is_answered_like_one_that_is_not_there(live_hub: LiveHub) -> None:
    slug = _collection(live_hub, "Secret plans", private=True)
    asked = f"press/other-words-{slug.rpartition('-')[2]}"
    hidden = live_hub.send("GET", f"/api/collections/{asked}")
    assert (hidden.status, hidden.json()) == (404, {"error": f"Collection not found: {asked}"})
    assert live_hub.send("GET", f"/api/collections/{asked}", token=live_hub.read_token).status == 200


def test_a_position_beyond_the_end_is_the_end(live_hub: LiveHub) -> None:
    live_hub.create("first")
    live_hub.create("second")
    slug = _collection(live_hub, "Two", "press/first", "press/second")
    address = f"/api/collections/{slug}"
    first = live_hub.send("GET", address).json()["items"][0]["_id"]
    moved = live_hub.send("PATCH", f"{address}/items/{first}", token=live_hub.write_token, position=10**30)
    assert moved.status == 200
    assert [item["id"] for item in live_hub.send("GET", address).json()["items"]] == ["press/second", "press/first"]


def test_an_upload_address_ends_with_its_token(live_hub: LiveHub) -> None:
    content = b"x" * 100
    oid = hashlib.sha256(content).hexdigest()
    leaver = live_hub.hub.create_token("leaver", "write")
    address = "/press/m.git/info/lfs/objects/batch"
    objects = [{"oid": oid, "size": len(content)}]
    batch = live_hub.send("POST", address, token=leaver, operation="upload", objects=objects)
    href = batch.json()["objects"][0]["actions"]["upload"]["href"]
    assert leaver not in href
    assert auth.revoke_tokens(live_hub.hub.root, "leaver") == 1
    refused = live_hub.send("PUT", href, body=content)
    assert refused.status == 403 and "revoked" in refused.json()["error"]
    batch = live_hub.send("POST", address, token=live_hub.write_token, operation="upload", objects=objects)
    href = batch.json()["objects"][0]["actions"]["upload"]["href"]
    assert live_hub.send("PUT", href, body=content).status == 200


def _mode(path: Path) -> str:
    return oct(stat.S_IMODE(path.stat().st_mode))


def test_the_folder_and_the_database_are_their_owners_alone(live_hub: LiveHub) -> None:
    root = live_hub.hub.root
    assert _mode(root) == "0o700"
    assert {path.name: _mode(path) for path in root.glob("hub.sqlite3*")} == {
        "hub.sqlite3": "0o600", "hub.sqlite3-wal": "0o600", "hub.sqlite3-shm": "0o600",
    }  # fmt: skip


def test_a_folder_of_an_earlier_version_is_closed(tmp_path: Path) -> None:
    initialise(tmp_path)
    tmp_path.chmod(0o755)
    (tmp_path / "hub.sqlite3").chmod(0o644)
    initialise(tmp_path)
    assert (_mode(tmp_path), _mode(tmp_path / "hub.sqlite3")) == ("0o700", "0o600")
