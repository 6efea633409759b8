"""A disk that fills up costs what was being written, and nothing else: the Hub says 507 and works again when it can."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import HfApi

from quantpress.errors import QuantpressError
from quantpress.hub.client import explained
from quantpress.localhub import partial
from quantpress.localhub.database import initialise
from quantpress.localhub.errors import HubError
from quantpress.localhub.server import RunningHub, running_hub
from quantpress.localhub.storage import ObjectStore
from quantpress.localhub.uploads import Uploads
from tests.support.disks import disk_of, fill

if TYPE_CHECKING:
    from tests.quantpress.localhub.conftest import Answer, LiveHub

MB = 1 << 20
FIRST, SECOND = (random.Random(seed).randbytes(20 * MB) for seed in (1, 2))
GOES_ON = {"key": "file", "value": {"path": "small.txt", "content": "small"}}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MB. The Hub keeps 32 MB of it free for its database."""
    with disk_of(tmp_path / "disk", 64) as mount:
        yield mount


def batch(hub: LiveHub, *contents: bytes) -> list[dict[str, Any]]:
    objects = [{"oid": hashlib.sha256(content).hexdigest(), "size": len(content)} for content in contents]
    address = "/press/m.git/info/lfs/objects/batch"
    answer = hub.send(
        "POST", address, token=hub.write_token, operation="upload", transfers=["multipart"], objects=objects
    )
    assert answer.status == 200
    answers: list[dict[str, Any]] = answer.json()["objects"]
    return answers


def send(hub: LiveHub, asked: dict[str, Any], content: bytes) -> Answer:
    """Uploads in parts. Returns the last answer, which is the first that is not 200."""
    action = asked["actions"]["upload"]
    size = int(action["header"]["chunk_size"])
    for start in range(0, len(content), size):
        answer = hub.send("PUT", action["header"][str(start // size + 1)], body=content[start : start + size])
        if answer.status != 200:
            return answer
    return hub.send("POST", action["href"], oid=asked["oid"], parts=[])


def lfs_line(content: bytes) -> dict[str, Any]:
    oid = hashlib.sha256(content).hexdigest()
    return {"key": "lfsFile", "value": {"path": "x.bin", "algo": "sha256", "oid": oid, "size": len(content)}}


def test_room_is_promised_once(disk: Path, live: Callable[[RunningHub], LiveHub]) -> None:
    with running_hub(disk / "hub") as hub:
        client = live(hub)
        client.create("m")
        (first,) = batch(client, FIRST)
        (second,) = batch(client, SECOND)
        assert second["error"]["code"] == 507
        assert second["error"]["message"].startswith("No room on the Hub's disk: 20971520 bytes wanted, ")
        assert send(client, first, FIRST).status == 200
        assert client.commit(lfs_line(FIRST), GOES_ON).status == 200
        assert "error" in batch(client, SECOND)[0]


def test_files_of_one_commit_get_room_together_or_not_at_all(disk: Path, live: Callable[[RunningHub], LiveHub]) -> None:
    with running_hub(disk / "hub") as hub:
        client = live(hub)
        client.create("m")
        assert ["error" in answer for answer in batch(client, FIRST, SECOND)] == [False, True]
        (second,) = batch(client, SECOND)  # the client gave up both, so the room is free
        assert send(client, second, SECOND).status == 200


def test_a_disk_that_others_fill_costs_the_upload_alone(disk: Path, live: Callable[[RunningHub], LiveHub]) -> None:
    with running_hub(disk / "hub") as hub:
        client = live(hub)
        client.create("m")
        (asked,) = batch(client, FIRST)
        filler = fill(disk, leave=10 * MB)
        answer = send(client, asked, FIRST)
        assert answer.status == 507
        assert answer.headers["X-Error-Message"].startswith("No room on the Hub's disk: the disk was full before")
        assert list((disk / "hub" / "incoming").iterdir()) == []
        assert batch(client, FIRST)[0]["error"]["code"] == 507
        assert client.commit(GOES_ON).status == 507
        filler.unlink()
        assert send(client, batch(client, FIRST)[0], FIRST).status == 200
        assert client.commit(lfs_line(FIRST), GOES_ON).status == 200


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_hub_whose_disk_was_full_works_after_a_restart(
    disk: Path, live: Callable[[RunningHub], LiveHub], how: signal.Signals
) -> None:
    with running_hub(disk / "hub") as hub:
        client = live(hub)
        client.create("m")
        (asked,) = batch(client, FIRST)
        filler = fill(disk)
        assert send(client, asked, FIRST).status == 507
        assert client.send("GET", "/api/models/press/m").status == 200
        refused = client.send("POST", "/api/repos/create", token=client.write_token, organization="press", name="n")
        assert refused.status == 507
        os.kill(hub.pid, how)
        time.sleep(0.5)
        filler.unlink()
    with running_hub(disk / "hub") as hub:
        client = live(hub)
        assert send(client, batch(client, FIRST)[0], FIRST).status == 200
        assert client.commit(lfs_line(FIRST), GOES_ON).status == 200


@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["token", "--user", "ann"], ["collect-garbage"]])
def test_a_command_on_a_full_disk_says_so(disk: Path, command: list[str]) -> None:
    initialise(disk / "hub")
    fill(disk)
    program = [sys.executable, "-m", "quantpress.localhub", *command, "--root", str(disk / "hub")]
    done = subprocess.run(program, check=False, capture_output=True, text=True, timeout=30)
    said = "No room on the Hub's disk: free some, then try again\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


def test_objects_leave_room_for_the_database(disk: Path, live: Callable[[RunningHub], LiveHub]) -> None:
    """Small files, which come with the commit, stop at the same mark as large ones."""
    with running_hub(disk / "hub") as hub:
        client = live(hub)
        client.create("m")
        answers = [client.add_text(f"{number}.txt", str(number) * 9_000_000) for number in range(5)]
        assert [answer.status for answer in answers] == [200, 200, 200, 507, 507]
        assert client.commit({"key": "deletedFile", "value": {"path": "0.txt"}}).status == 200
        client.create("n")


def test_the_press_says_why_in_one_line(disk: Path) -> None:
    with running_hub(disk / "hub") as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.create_token("press", "write"))
        api.create_repo("press/m")
        with pytest.raises(QuantpressError) as caught, explained(hub.endpoint, "publishing press/m"):
            api.upload_file(path_or_fileobj=FIRST + SECOND, path_in_repo="x.gguf", repo_id="press/m")
        said = f"publishing press/m on {hub.endpoint}: No room on the Hub's disk: 41943040 bytes wanted, "
        assert str(caught.value).startswith(said)
        assert "\n" not in str(caught.value)


class Clock:
    """A clock that a test moves, because a promise is kept longer than a test may take."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(partial, "time", clock)
    return clock


def named(number: int) -> tuple[str, int]:
    return f"{number}" * 64, 20 * MB


def receive(uploads: Uploads, upload: str, number: int, content: bytes) -> None:
    async def stream() -> AsyncIterator[bytes]:
        yield content

    asyncio.run(uploads.receive_part(upload, *named(number), stream(), 0, len(content)))


def promised(uploads: Uploads, number: int) -> str:
    (answer,) = uploads.promise([named(number)])
    assert isinstance(answer, str), answer
    return answer


def test_what_a_sender_left_goes_when_its_room_is_needed(disk: Path, clock: Clock) -> None:
    store = ObjectStore(disk)
    store.prepare()
    uploads = Uploads(store)
    receive(uploads, promised(uploads, 1), 1, FIRST[: 15 * MB])
    clock.now += 899
    assert isinstance(uploads.promise([named(2)])[0], HubError)
    clock.now += 2
    assert len(list(store.incoming.iterdir())) == 1
    promised(uploads, 2)
    assert list(store.incoming.iterdir()) == []


def test_a_sender_that_begins_again_needs_its_room_once(disk: Path) -> None:
    """A press was killed in the middle of an upload. The next one asks for the same file."""
    store = ObjectStore(disk)
    store.prepare()
    uploads = Uploads(store)
    receive(uploads, promised(uploads, 1), 1, FIRST[: 15 * MB])
    receive(uploads, promised(uploads, 1), 1, FIRST)
    assert len(list(store.incoming.iterdir())) == 1


def test_what_an_earlier_server_left_goes_when_its_room_is_needed(disk: Path) -> None:
    store = ObjectStore(disk)
    store.prepare()
    left = store.incoming / f"large-{'0' * 32}-{named(1)[0]}"
    left.write_bytes(FIRST)
    uploads = Uploads(store)
    assert isinstance(uploads.promise([named(2)])[0], HubError)
    os.utime(left, (time.time() - 901,) * 2)
    promised(uploads, 2)
    assert not left.exists()


def test_a_sender_that_begins_again_at_another_server_needs_its_room_once(disk: Path) -> None:
    """Both the Hub and the press were killed in the middle of an upload."""
    store = ObjectStore(disk)
    store.prepare()
    left = store.incoming / f"large-{'0' * 32}-{named(1)[0]}"
    left.write_bytes(FIRST)
    promised(Uploads(store), 1)
    assert not left.exists()


def test_an_address_without_a_promise_is_refused_if_there_is_no_room(disk: Path, clock: Clock) -> None:
    store = ObjectStore(disk)
    store.prepare()
    uploads = Uploads(store)
    late = promised(uploads, 1)
    clock.now += 901
    promised(uploads, 2)
    with pytest.raises(HubError) as caught:
        receive(uploads, late, 1, FIRST)
    assert caught.value.status == 507
    assert list(store.incoming.iterdir()) == []


def test_a_completion_without_bytes_promises_nothing(disk: Path) -> None:
    store = ObjectStore(disk)
    store.prepare()
    uploads = Uploads(store)
    with pytest.raises(HubError, match="0 of 20971520 bytes"):
        uploads.finish("0" * 32, *named(1))
    promised(uploads, 2)
