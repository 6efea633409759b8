"""Parts that are sent again, cut off or sent twice at once never give an object that is not of its hash."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from quantpress.localhub.errors import HubError
from quantpress.localhub.storage import ObjectStore
from quantpress.localhub.uploads import Uploads

if TYPE_CHECKING:
    from tests.quantpress.localhub.conftest import LiveHub

UPLOAD = "0" * 32
CONTENT = b"first.second.third."
PARTS = [(0, b"first."), (6, b"second."), (13, b"third.")]
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Sender:
    """Sends parts of one upload. A part can stay open, so that others arrive in the middle of it."""

    def __init__(self, root: Path) -> None:
        self.store = ObjectStore(root)
        self.store.prepare()
        self.uploads = Uploads(self.store)

    async def send(self, offset: int, content: bytes, announced: int | None = None) -> None:
        """Sends a part. If fewer bytes arrive than were announced, the Hub refuses the part."""

        async def stream() -> AsyncIterator[bytes]:
            yield content

        await self._receive(stream(), offset, len(content) if announced is None else announced)

    async def open(self, offset: int, content: bytes) -> tuple[asyncio.Task[None], asyncio.Event]:
        """Starts to send a part that ends only when the returned event is set."""
        begun, end = asyncio.Event(), asyncio.Event()

        async def stream() -> AsyncIterator[bytes]:
            begun.set()
            await end.wait()
            yield content

        task = asyncio.create_task(self._receive(stream(), offset, len(content)))
        await begun.wait()
        return task, end

    async def _receive(self, stream: AsyncIterator[bytes], offset: int, length: int) -> None:
        await self.uploads.receive_part(UPLOAD, SHA256, len(CONTENT), stream, offset, length)

    def finish(self) -> None:
        self.uploads.finish(UPLOAD, SHA256, len(CONTENT))

    def assert_refused(self) -> None:
        with pytest.raises(HubError) as caught:
            self.finish()
        assert caught.value.status == 422
        assert self.store.size(SHA256) is None


@pytest.fixture
def sender(tmp_path: Path) -> Sender:
    return Sender(tmp_path)


def test_a_part_sent_again_and_cut_off_is_noticed(sender: Sender) -> None:
    async def arrive() -> None:
        for offset, part in PARTS:
            await sender.send(offset, part)
        with pytest.raises(HubError, match="3 bytes arrived, 6 were announced"):
            await sender.send(0, b"xxx", announced=6)

    asyncio.run(arrive())
    sender.assert_refused()


def test_a_part_sent_again_and_cut_off_can_be_sent_once_more(sender: Sender) -> None:
    async def arrive() -> None:
        for offset, part in PARTS:
            await sender.send(offset, part)
        with pytest.raises(HubError):
            await sender.send(0, b"xxx", announced=6)
        await sender.send(*PARTS[0])

    asyncio.run(arrive())
    sender.finish()
    assert sender.store.path(SHA256).read_bytes() == CONTENT


def test_a_part_that_arrives_while_an_earlier_one_changes_is_not_trusted(sender: Sender) -> None:
    """The second part is hashed on top of the first one, and meanwhile the first one is sent with other bytes."""

    async def arrive() -> None:
        await sender.send(*PARTS[0])
        second, end = await sender.open(*PARTS[1])
        for _ in range(2):
            await sender.send(0, b"FIRST.")
        end.set()
        await second
        await sender.send(*PARTS[2])

    asyncio.run(arrive())
    sender.assert_refused()


def test_a_part_from_two_senders_at_once_is_not_trusted(sender: Sender) -> None:
    async def arrive() -> None:
        late, end = await sender.open(0, b"FIRST.")
        for offset, part in PARTS:
            await sender.send(offset, part)
        end.set()
        await late

    asyncio.run(arrive())
    sender.assert_refused()


def test_what_arrives_after_the_upload_is_complete_changes_no_object(sender: Sender) -> None:
    async def arrive() -> None:
        for offset, part in PARTS:
            await sender.send(offset, part)
        await asyncio.to_thread(sender.finish)
        await sender.send(0, b"FIRST.")

    asyncio.run(arrive())
    sender.finish()
    assert sender.store.path(SHA256).read_bytes() == CONTENT
    assert list(sender.store.incoming.iterdir()) == []


def test_two_completions_at_once_are_one(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the two, a sender writes other bytes under the same address. They are no part of the object."""
    adopt = ObjectStore.adopt
    second: list[threading.Thread] = []

    def adopt_slowly(store: ObjectStore, temporary: Path, sha256: str) -> None:
        if not second:
            second.append(threading.Thread(target=sender.finish))
            second[0].start()
            second[0].join(0.2)
            adopt(store, temporary, sha256)
        else:
            first.join()
            asyncio.run(sender.send(0, b"FIRST.second.third."))
            adopt(store, temporary, sha256)

    async def arrive() -> None:
        for offset, part in PARTS:
            await sender.send(offset, part)

    asyncio.run(arrive())
    monkeypatch.setattr(ObjectStore, "adopt", adopt_slowly)
    first = threading.Thread(target=sender.finish)
    first.start()
    first.join()
    second[0].join()
    assert sender.store.path(SHA256).read_bytes() == CONTENT


def test_over_http_a_part_sent_again_and_cut_off_is_noticed(live_hub: LiveHub) -> None:
    content = random.Random(9).randbytes(20_000_000)
    oid = hashlib.sha256(content).hexdigest()
    answer = live_hub.send(
        "POST",
        "/press/m.git/info/lfs/objects/batch",
        token=live_hub.write_token,
        operation="upload",
        transfers=["multipart"],
        objects=[{"oid": oid, "size": len(content)}],
    )
    action: Any = answer.json()["objects"][0]["actions"]["upload"]
    size = int(action["header"]["chunk_size"])
    for number in (1, 2, 3):
        part = content[(number - 1) * size : number * size]
        assert live_hub.send("PUT", action["header"][str(number)], body=part).status == 200
    address, hub = action["header"]["1"].removeprefix(live_hub.hub.endpoint), urlsplit(live_hub.hub.endpoint)
    with socket.create_connection((hub.hostname, hub.port)) as connection:
        connection.sendall(f"PUT {address} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode())
        connection.sendall(b"x" * 3_000_000)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass
    for _ in range(1000):
        answer = live_hub.send("POST", action["href"], oid=oid, parts=[])
        if answer.status != 503:  # while the Hub has not noticed yet that the sender left
            break
        threading.Event().wait(0.01)
    assert answer.status == 422
    assert not (live_hub.hub.root / "objects" / oid[:2] / oid).exists()
