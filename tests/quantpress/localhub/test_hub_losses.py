"""What an object costs that is lost: its own file, and nothing else."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from quantpress.localhub import admin
from quantpress.localhub.database import initialise
from quantpress.localhub.storage import ObjectStore

if TYPE_CHECKING:
    from tests.quantpress.localhub.conftest import LiveHub


def _lose(hub: LiveHub, content: bytes) -> None:
    ObjectStore(hub.hub.root).path(hashlib.sha256(content).hexdigest()).unlink()


def test_a_lost_card_costs_the_card(live_hub: LiveHub) -> None:
    live_hub.create("lostcard")
    card = "---\nlicense: mit\n---\n# A card of its own that nobody read before\n"
    assert live_hub.add_text("README.md", card, "press/lostcard").status == 200
    _lose(live_hub, card.encode())
    for address in ("/", "/press/lostcard", "/press/lostcard/tree/main", "/api/models?full=1",
                    "/api/models/press/lostcard", "/api/models/press/lostcard/tree/main?expand=1",
                    "/press/lostcard/resolve/main/.gitattributes"):  # fmt: skip
        answer = live_hub.send("GET", address)
        assert answer.status == 200, address
    listed = live_hub.send("GET", "/api/models?search=press/lostcard&full=1").json()
    assert [(model["id"], model["cardData"], len(model["siblings"])) for model in listed] == [("press/lostcard", {}, 2)]
    assert "the Hub has lost its file" in live_hub.send("GET", "/press/lostcard").body.decode()
    lost = live_hub.send("GET", "/press/lostcard/resolve/main/README.md")
    assert lost.status == 410
    assert lost.json()["error"] == "The Hub has lost the bytes of 'README.md': upload the file again"
    assert live_hub.add_text("README.md", card, "press/lostcard").status == 200
    assert live_hub.send("GET", "/api/models/press/lostcard").json()["cardData"] == {"license": "mit"}


def test_an_object_cut_short_is_not_served(live_hub: LiveHub) -> None:
    live_hub.create("cut")
    assert live_hub.add_text("a.txt", "the whole text", "press/cut").status == 200
    path = ObjectStore(live_hub.hub.root).path(hashlib.sha256(b"the whole text").hexdigest())
    path.write_bytes(b"the who")
    assert live_hub.send("GET", "/press/cut/resolve/main/a.txt").status == 410


def test_a_repo_without_its_main_costs_that_repo(live_hub: LiveHub) -> None:
    live_hub.create("headless")
    with sqlite3.connect(live_hub.hub.root / "hub.sqlite3") as db:
        db.execute("DELETE FROM refs WHERE repo = (SELECT id FROM repos WHERE name = 'headless')")
    db.close()
    listed = live_hub.send("GET", "/api/models")
    assert listed.status == 200
    assert "press/m" in {model["id"] for model in listed.json()}
    assert "press/headless" not in {model["id"] for model in listed.json()}
    assert live_hub.send("GET", "/").status == 200
    assert live_hub.send("GET", "/api/models/press/headless").status == 404


def test_a_lost_model_costs_its_own_image(live_hub: LiveHub) -> None:
    """Ollama's image configurations are made again from all models of a repo."""
    live_hub.create("images")

    def gguf(name: str) -> bytes:
        key = b"general.architecture"
        return (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", len(key)) + key
            + struct.pack("<IQ", 8, len(name)) + name.encode()
        )  # fmt: skip

    lost, kept = gguf("alpha"), gguf("omega")
    for name, content in (("x-Q2_K.gguf", lost), ("x-Q4_K_M.gguf", kept)):
        ObjectStore(live_hub.hub.root).add(content)
        oid = hashlib.sha256(content).hexdigest()
        value = {"path": name, "algo": "sha256", "oid": oid, "size": len(content)}
        assert live_hub.commit({"key": "lfsFile", "value": value}, repo="press/images").status == 200
    _lose(live_hub, lost)
    image = live_hub.send("GET", "/v2/press/images/manifests/Q4_K_M").json()
    for digest in (image["config"]["digest"], image["layers"][0]["digest"]):
        assert live_hub.send("GET", f"/v2/press/images/blobs/{digest}").status == 200
    assert live_hub.send("GET", "/v2/press/images/manifests/Q2_K").status == 410
    assert live_hub.send("GET", f"/v2/press/images/blobs/sha256:{hashlib.sha256(lost).hexdigest()}").status == 410


@pytest.mark.parametrize("stray", ["objects/.DS_Store", "objects/ab/notes.txt", "incoming/folder/x"])
def test_a_stray_file_costs_nothing(tmp_path: Path, stray: str) -> None:
    initialise(tmp_path)
    path = tmp_path / stray
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    for each in (path, path.parent):
        os.utime(each, (0, 0))
    initialise(tmp_path)
    assert admin.collect_garbage(tmp_path) == 0
    assert path.exists()
