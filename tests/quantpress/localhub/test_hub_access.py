"""Tokens, private and gated repos."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from quantpress.localhub import admin, auth
from quantpress.localhub.app import create_app

if TYPE_CHECKING:
    from tests.quantpress.localhub.conftest import LiveHub


def test_a_token_is_one_that_llama_cpp_takes_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    token = auth.create_token(tmp_path, "press", "write")
    assert token.startswith("hf_") and len(token) >= 40
    with sqlite3.connect(tmp_path / "hub.sqlite3") as db:
        assert db.execute("SELECT user, role FROM tokens").fetchall() == [("press", "write")]
    assert not any(token.encode() in path.read_bytes() for path in tmp_path.iterdir() if path.is_file())


def test_the_command_makes_a_token_that_works_at_once(live_hub: LiveHub) -> None:
    command = [sys.executable, "-m", "quantpress.localhub", "token", "--user", "ann", "--role", "read"]
    made = subprocess.run(
        [*command, "--root", live_hub.hub.root], check=True, capture_output=True, text=True
    ).stdout.strip()
    who = live_hub.send("GET", "/api/whoami-v2", token=made)
    assert who.status == 200 and who.json()["name"] == "ann"
    assert auth.revoke_tokens(live_hub.hub.root, "ann") == 1
    assert live_hub.send("GET", "/api/whoami-v2", token=made).status == 401


def test_a_wrong_token_is_refused_even_where_none_is_needed(live_hub: LiveHub) -> None:
    answer = live_hub.send("GET", "/api/models/press/m", token="hf_" + "x" * 40)
    assert answer.status == 401
    assert answer.headers["X-Error-Message"] == "Invalid credentials in Authorization header"


def test_a_gated_repo_opens_to_whom_it_is_granted(live_hub: LiveHub) -> None:
    live_hub.create("gated")
    live_hub.add_text("a.txt", "one", "press/gated")
    address = "/press/gated/resolve/main/a.txt"
    admin.set_gated(live_hub.hub.root, "press/gated", "manual")
    for token in (None, live_hub.read_token):
        answer = live_hub.send("GET", address, token=token)
        assert (answer.status, answer.headers["X-Error-Code"]) == (403, "GatedRepo")
    assert live_hub.send("GET", "/api/models/press/gated").json()["gated"] == "manual"
    admin.grant_access(live_hub.hub.root, "press/gated", "reader")
    assert live_hub.send("GET", address, token=live_hub.read_token).body == b"one"
    assert live_hub.send("GET", address).status == 403
    admin.revoke_access(live_hub.hub.root, "press/gated", "reader")
    assert live_hub.send("GET", address, token=live_hub.read_token).status == 403
    admin.set_gated(live_hub.hub.root, "press/gated", None)
    assert live_hub.send("GET", address).body == b"one"


def test_who_may_gate_a_repo_reads_what_is_in_it(live_hub: LiveHub) -> None:
    """A press needs this under an organization's namespace: it gates its repo and then reads its own manifest there."""
    live_hub.create("owned")
    live_hub.add_text("a.txt", "one", "press/owned")
    member = live_hub.hub.create_token("member", "write")
    address = "/press/owned/resolve/main/a.txt"
    answer = live_hub.send("PUT", "/api/models/press/owned/settings", token=member, gated="auto")
    assert answer.status == 200
    assert live_hub.send("GET", address, token=member).body == b"one"
    assert live_hub.send("GET", address, token=live_hub.read_token).status == 403


def test_a_private_repo_does_not_exist_without_a_token(live_hub: LiveHub) -> None:
    live_hub.create("secret")
    live_hub.add_text("a.txt", "one", "press/secret")
    admin.set_private(live_hub.hub.root, "press/secret", True)
    for address in (
        "/api/models/press/secret",
        "/api/models/press/secret/refs",
        "/api/models/press/secret/tree/main",
        "/press/secret/resolve/main/a.txt",
        "/press/secret",
        "/press/secret/tree/main",
    ):
        absent = live_hub.send("GET", address.replace("secret", "absent"))
        hidden = live_hub.send("GET", address)
        assert hidden.status == 404
        assert hidden.body == absent.body.replace(b"absent", b"secret")
        assert live_hub.send("GET", address, token=live_hub.read_token).status == 200
    assert b"press/secret" not in live_hub.send("GET", "/").body
    assert b"press/secret" not in live_hub.send("GET", "/api/models").body


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:7860", 200), ("[::1]:7860", 200), ("LOCALHOST", 200), ("hub.example", 200), ("10.1.2.3", 200),
     ("attacker.example:7860", 421), ("127.0.0.1.attacker.example", 421), ("", 421), ("127.0.0.1/x", 421),
     ("[::1", 421), ("localhost@attacker.example", 421), ("hub.example:x", 421)],
)  # fmt: skip
def test_the_hub_answers_only_to_its_own_names(tmp_path: Path, host: str, status: int) -> None:
    """Otherwise a web page whose name leads to 127.0.0.1 could read the Hub with the visitor's browser."""
    hub = httpx.ASGITransport(create_app(tmp_path, ["hub.example"]))

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=hub, base_url="http://hub") as client:
            return await client.get("/api/models", headers={"Host": host})

    answer = asyncio.run(ask())
    assert answer.status_code == status
    if status == 421:
        assert "start it with --name" in answer.headers["X-Error-Message"]


def test_strangers_do_not_hold_up_clients_with_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(tmp_path)
    token = auth.create_token(tmp_path, "press", "write")
    go_on = threading.Event()

    def slow(*_: object, **__: object) -> list[object]:
        go_on.wait(60)
        return []

    monkeypatch.setattr("quantpress.localhub.collections.find", slow)

    async def ask() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            strangers = [asyncio.create_task(client.get("/api/collections")) for _ in range(60)]
            await asyncio.sleep(0.5)
            try:
                async with asyncio.timeout(20):
                    answer = await client.get("/api/whoami-v2", headers={"Authorization": f"Bearer {token}"})
            finally:
                go_on.set()
                await asyncio.gather(*strangers)
            return answer.status_code

    assert asyncio.run(ask()) == 200


def test_an_upload_address_is_given_to_writers_only(live_hub: LiveHub) -> None:
    for token, status in ((None, 401), (live_hub.read_token, 403)):
        answer = live_hub.send(
            "POST", "/press/m.git/info/lfs/objects/batch", token=token, operation="upload", objects=[]
        )
        assert answer.status == status


def test_garbage_is_what_no_commit_needs(tmp_path: Path) -> None:
    import os

    from quantpress.localhub.commits import found_repo, regular_entry
    from quantpress.localhub.database import initialise, writing
    from quantpress.localhub.storage import ObjectStore

    initialise(tmp_path)
    store = ObjectStore(tmp_path)
    with writing(tmp_path) as db:
        attributes = regular_entry(store, ".gitattributes", b"kept\n")
        repo = found_repo(db, "model", "press/m", private=False, author="press", attributes=attributes)
    old, young = store.add(b"old garbage"), store.add(b"young garbage")
    for path in store.stored():
        if path.name != young:
            os.utime(path, (0, 0))
    assert admin.collect_garbage(tmp_path) == len(b"old garbage")
    assert store.size(old) is None and store.size(young) == len(b"young garbage")
    assert len(store.stored()) == 2
    assert repo.repo_id == "press/m"
