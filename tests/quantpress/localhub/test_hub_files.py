"""Downloads and large uploads on the wire."""

from __future__ import annotations

import hashlib
import random
import socket
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

if TYPE_CHECKING:
    from tests.quantpress.localhub.conftest import Answer, LiveHub

CONTENT = random.Random(3).randbytes(20_000_000)
OID = hashlib.sha256(CONTENT).hexdigest()


def batch(hub: LiveHub, repo: str, oid: str, size: int, transfers: tuple[str, ...] = ("basic",)) -> Any:
    answer = hub.send(
        "POST",
        f"/press/{repo}.git/info/lfs/objects/batch",
        token=hub.write_token,
        operation="upload",
        transfers=transfers,
        objects=[{"oid": oid, "size": size}],
    )
    assert answer.status == 200, answer.body
    return answer.json()["objects"][0]


def upload(hub: LiveHub, repo: str, content: bytes) -> Answer:
    action = batch(hub, repo, hashlib.sha256(content).hexdigest(), len(content))["actions"]["upload"]
    return hub.send("PUT", action["href"], body=content)


def lfs_line(path: str, content: bytes) -> dict[str, Any]:
    oid = hashlib.sha256(content).hexdigest()
    return {"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": oid, "size": len(content)}}


@pytest.fixture(scope="module")
def with_file(live_hub: LiveHub) -> LiveHub:
    """The Hub with the repo ``press/files``, which holds CONTENT as ``x.gguf`` and a short text."""
    live_hub.create("files")
    assert upload(live_hub, "files", CONTENT).status == 200
    text = {"key": "file", "value": {"path": "a.txt", "content": "0123456789", "encoding": "utf-8"}}
    assert live_hub.commit(lfs_line("x.gguf", CONTENT), text, repo="press/files").status == 200
    return live_hub


def test_head_tells_what_clients_cache_by(with_file: LiveHub) -> None:
    head = with_file.send("GET", "/api/models/press/files").json()["sha"]
    answer = with_file.send("HEAD", "/press/files/resolve/main/x.gguf")
    assert answer.status == 200 and answer.body == b""
    assert answer.headers["ETag"] == f'"{OID}"' == answer.headers["X-Linked-Etag"]
    assert answer.headers["X-Linked-Size"] == answer.headers["Content-Length"] == "20000000"
    assert answer.headers["X-Repo-Commit"] == head
    text = with_file.send("HEAD", "/press/files/resolve/main/a.txt")
    assert text.headers["ETag"] == '"ad471007bd7f5983d273b9584e5629230150fd54"'  # git hash-object
    assert "X-Linked-Etag" not in text.headers


@pytest.mark.parametrize(
    ("asked", "status", "content_range", "body"),
    [
        ("bytes=2-4", 206, "bytes 2-4/10", b"234"),
        ("bytes=7-", 206, "bytes 7-9/10", b"789"),
        ("bytes=-3", 206, "bytes 7-9/10", b"789"),
        ("bytes=0-99", 206, "bytes 0-9/10", b"0123456789"),
        ("bytes=10-", 416, "bytes */10", None),
    ],
)
def test_ranges(with_file: LiveHub, asked: str, status: int, content_range: str, body: bytes | None) -> None:
    answer = with_file.send("GET", "/press/files/resolve/main/a.txt", headers={"Range": asked})
    assert answer.status == status
    assert answer.headers["Content-Range"] == content_range
    assert body is None or answer.body == body


def test_a_large_file_comes_whole_and_from_the_middle(with_file: LiveHub) -> None:
    address = "/press/files/resolve/main/x.gguf"
    assert hashlib.sha256(with_file.send("GET", address).body).hexdigest() == OID
    assert with_file.send("GET", address, headers={"Range": "bytes=19999990-"}).body == CONTENT[-10:]
    assert with_file.send("GET", address, headers={"If-None-Match": f'"{OID}"'}).status == 304


def test_a_missing_file_says_at_which_commit(with_file: LiveHub) -> None:
    answer = with_file.send("HEAD", "/press/files/resolve/main/absent")
    assert answer.status == 404 and answer.headers["X-Error-Code"] == "EntryNotFound"
    assert answer.headers["X-Repo-Commit"] == with_file.send("GET", "/api/models/press/files").json()["sha"]


def test_somebodys_page_does_not_run_as_a_page_of_the_hub(live_hub: LiveHub) -> None:
    live_hub.create("hostile")
    live_hub.add_text("index.html", "<script>alert(1)</script>", "press/hostile")
    answer = live_hub.send("GET", "/press/hostile/resolve/main/index.html")
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_what_is_there_is_not_asked_for_again(with_file: LiveHub) -> None:
    assert batch(with_file, "m", OID, len(CONTENT)) == {"oid": OID, "size": 20_000_000}


def test_preupload_tells_how_a_file_travels_and_what_is_there(with_file: LiveHub) -> None:
    def file(path: str, size: int, sample: str = "") -> dict[str, Any]:
        return {"path": path, "size": size, "sample": sample}

    answer = with_file.send(
        "POST",
        "/api/models/press/files/preupload/main",
        token=with_file.write_token,
        files=[
            file("a.txt", 10, "MDEy"),
            file("x.gguf", 20_000_000),
            file("new.txt", 11 * 1024 * 1024, "MDEy"),
            file("image.unknown", 10, "iVAA"),  # holds a NUL byte
            file("empty.gguf", 0),
        ],
    )
    assert [(f["path"], f["uploadMode"], f.get("oid")) for f in answer.json()["files"]] == [
        ("a.txt", "regular", "ad471007bd7f5983d273b9584e5629230150fd54"),
        ("x.gguf", "lfs", OID),
        ("new.txt", "lfs", None),
        ("image.unknown", "lfs", None),
        ("empty.gguf", "regular", None),
    ]


def test_bytes_with_another_hash_are_refused(live_hub: LiveHub) -> None:
    action = batch(live_hub, "m", "0" * 64, 5)["actions"]["upload"]
    assert live_hub.send("PUT", action["href"], body=b"12345").status == 422
    assert "actions" in batch(live_hub, "m", "0" * 64, 5)
    refused = live_hub.commit(
        {"key": "lfsFile", "value": {"path": "x.bin", "algo": "sha256", "oid": "0" * 64, "size": 5}}
    )
    assert refused.status == 400 and "not uploaded" in refused.json()["error"]


def test_more_or_fewer_bytes_than_announced_are_refused(live_hub: LiveHub) -> None:
    for body, status in ((b"1234", 400), (b"123456", 413)):
        action = batch(live_hub, "m", hashlib.sha256(b"12345").hexdigest(), 5)["actions"]["upload"]
        assert live_hub.send("PUT", action["href"], body=body).status == status


def test_an_upload_address_cannot_be_made_up(live_hub: LiveHub) -> None:
    href = batch(live_hub, "m", hashlib.sha256(b"12345").hexdigest(), 5)["actions"]["upload"]["href"]
    for forged in (
        href.replace("length=5", "length=6"),
        href.replace("/lfs/", "/lfs/" + "0" * 64 + "?x="),
        href.partition("&signature")[0],
        href.replace("expires=", "expires=9"),
    ):
        assert live_hub.send("PUT", forged, body=b"12345").status == 403
    assert live_hub.send("PUT", href, body=b"12345").status == 200


def test_parts_in_any_order_and_twice_make_the_file(live_hub: LiveHub) -> None:
    content = random.Random(4).randbytes(20_000_000)
    oid = hashlib.sha256(content).hexdigest()
    action = batch(live_hub, "m", oid, len(content), ("basic", "multipart"))["actions"]["upload"]
    size = int(action["header"]["chunk_size"])
    assert size == 8 * 1024 * 1024 and set(action["header"]) == {"chunk_size", "1", "2", "3"}
    for number in ("1", "3", "2", "1"):
        offset = (int(number) - 1) * size
        answer = live_hub.send("PUT", action["header"][number], body=content[offset : offset + size])
        assert answer.status == 200 and answer.headers["ETag"]
    assert live_hub.send("POST", action["href"], oid="0" * 64, parts=[]).status == 400
    for _ in range(2):
        assert live_hub.send("POST", action["href"], oid=oid, parts=[]).status == 200
    assert live_hub.commit(lfs_line("parts.gguf", content)).status == 200
    stored = live_hub.hub.root / "objects" / oid[:2] / oid
    assert hashlib.sha256(stored.read_bytes()).hexdigest() == oid


def test_a_missing_part_is_noticed(live_hub: LiveHub) -> None:
    content = random.Random(5).randbytes(20_000_000)
    oid = hashlib.sha256(content).hexdigest()
    action = batch(live_hub, "m", oid, len(content), ("multipart",))["actions"]["upload"]
    size = int(action["header"]["chunk_size"])
    for number in ("1", "3"):
        offset = (int(number) - 1) * size
        live_hub.send("PUT", action["header"][number], body=content[offset : offset + size])
    assert live_hub.send("POST", action["href"], oid=oid, parts=[]).status == 422
    assert not (live_hub.hub.root / "objects" / oid[:2] / oid).exists()


def test_a_part_sent_again_with_other_bytes_is_noticed(live_hub: LiveHub) -> None:
    content = random.Random(7).randbytes(10_000_000)
    oid = hashlib.sha256(content).hexdigest()
    action = batch(live_hub, "m", oid, len(content), ("multipart",))["actions"]["upload"]
    size = int(action["header"]["chunk_size"])
    for number, part in (("1", content[:size]), ("2", content[size:]), ("1", b"x" * size)):
        assert live_hub.send("PUT", action["header"][number], body=part).status == 200
    assert live_hub.send("POST", action["href"], oid=oid, parts=[]).status == 422
    assert not (live_hub.hub.root / "objects" / oid[:2] / oid).exists()


def test_an_upload_is_not_completed_while_bytes_arrive(live_hub: LiveHub) -> None:
    content = random.Random(8).randbytes(10_000_000)
    oid = hashlib.sha256(content).hexdigest()
    action = batch(live_hub, "m", oid, len(content), ("multipart",))["actions"]["upload"]
    size = int(action["header"]["chunk_size"])
    parts = urlsplit(live_hub.hub.endpoint)
    with socket.create_connection((parts.hostname, parts.port)) as late:
        # A second sender of part 1 waits until everything else is done, to change bytes after the check.
        address = action["header"]["1"].removeprefix(live_hub.hub.endpoint)
        late.sendall(f"PUT {address} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode())
        late.sendall(b"x" * 3_000_000)
        upload = parse_qs(urlsplit(address).query)["upload"][0]
        temporary = live_hub.hub.root / "incoming" / f"large-{upload}-{oid}"
        while not temporary.exists() or not temporary.stat().st_size:
            threading.Event().wait(0.01)
        for number, part in (("1", content[:size]), ("2", content[size:])):
            assert live_hub.send("PUT", action["header"][number], body=part).status == 200
        assert live_hub.send("POST", action["href"], oid=oid, parts=[]).status == 503
    for _ in range(1000):
        answer = live_hub.send("POST", action["href"], oid=oid, parts=[])
        if answer.status != 503:
            break
        threading.Event().wait(0.01)
    # The Hub overwrites the late sender's bytes, or finds them and refuses the upload. It never accepts them.
    stored = live_hub.hub.root / "objects" / oid[:2] / oid
    assert answer.status in (200, 422)
    assert (answer.status == 200) == stored.exists()
    assert answer.status == 422 or hashlib.sha256(stored.read_bytes()).hexdigest() == oid
