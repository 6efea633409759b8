"""A SIGKILL at any moment leaves every repo whole."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from quantpress.localhub.database import initialise, reading, writing
from quantpress.localhub.errors import HubInUse
from quantpress.localhub.repos import create_repo, list_repos
from quantpress.localhub.server import RunningHub, running_hub

if TYPE_CHECKING:
    from tests.quantpress.localhub.conftest import LiveHub

FILES_PER_COMMIT = 5


def assert_whole(root: Path) -> int:
    """Asserts that every commit is complete and every object has its name as hash. Returns the number of commits."""
    with sqlite3.connect(root / "hub.sqlite3") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    with reading(root) as db:
        commits = db.execute("SELECT tree FROM commits ORDER BY rowid").fetchall()
        for number, commit in enumerate(commits):
            entries = db.execute("SELECT * FROM tree_entries WHERE tree = ?", (commit["tree"],)).fetchall()
            assert len(entries) == 1 + number * FILES_PER_COMMIT
            for entry in entries:
                content = (root / "objects" / entry["sha256"][:2] / entry["sha256"]).read_bytes()
                assert hashlib.sha256(content).hexdigest() == entry["sha256"]
                assert len(content) == entry["size"]
    return len(commits)


@pytest.mark.slow
def test_killed_between_and_inside_commits(tmp_path: Path, live: Callable[[RunningHub], LiveHub]) -> None:
    root = tmp_path / "hub"
    chance = random.Random(0)
    commits = 0
    for round_number in range(6):
        with running_hub(root) as hub:
            client = live(hub)
            if round_number == 0:
                client.create("m")
            # Kill the Hub during a commit, at another point of the commit in each round, but after the first commit.
            timer = threading.Timer(chance.uniform(0.05, 0.4), os.kill, (hub.pid, signal.SIGKILL))
            with contextlib.suppress(OSError, http.client.HTTPException):
                for step in range(10_000):
                    name = f"{round_number}-{step}"
                    answer = client.commit(
                        *(
                            {"key": "file", "value": {"path": f"{name}-{i}.txt", "content": f"{name}{i}" * 50}}
                            for i in range(FILES_PER_COMMIT)
                        )
                    )
                    assert answer.status == 200
                    if step == 0:
                        timer.start()
            timer.join()
        now = assert_whole(root)
        assert now >= max(commits, 1)
        commits = now
    assert commits > 6  # the kills came after work, not before it


def test_killed_in_the_middle_of_an_upload(tmp_path: Path, live: Callable[[RunningHub], LiveHub]) -> None:
    root = tmp_path / "hub"
    content = random.Random(6).randbytes(3_000_000)
    oid = hashlib.sha256(content).hexdigest()
    with running_hub(root) as hub:
        client = live(hub)
        client.create("m")
        answer = client.send(
            "POST",
            "/press/m.git/info/lfs/objects/batch",
            token=client.write_token,
            operation="upload",
            objects=[{"oid": oid, "size": len(content)}],
        )
        href = answer.json()["objects"][0]["actions"]["upload"]["href"].removeprefix(hub.endpoint)
        parts = urlsplit(hub.endpoint)
        with socket.create_connection((parts.hostname, parts.port)) as connection:
            head = f"PUT {href} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
            connection.sendall(head.encode() + content[:2_000_000])
            while not any(path.stat().st_size for path in (root / "incoming").iterdir()):
                threading.Event().wait(0.01)
            os.kill(hub.pid, signal.SIGKILL)
    assert not (root / "objects" / oid[:2] / oid).exists()
    with running_hub(root) as hub:
        client = live(hub)
        # The same upload address must still work, because a client that tries again uses it.
        assert client.send("PUT", href, body=content).status == 200
        line = {"key": "lfsFile", "value": {"path": "x.bin", "algo": "sha256", "oid": oid, "size": len(content)}}
        assert client.commit(line).status == 200
        assert client.send("GET", "/press/m/resolve/main/x.bin").body == content
    assert list((root / "incoming").iterdir()) == []


def test_killed_in_the_middle_of_a_commits_body(tmp_path: Path, live: Callable[[RunningHub], LiveHub]) -> None:
    root = tmp_path / "hub"
    with running_hub(root) as hub:
        client = live(hub)
        client.create("m")
        line = {"key": "file", "value": {"path": "a.txt", "content": "half of a commit"}}
        header = {"key": "header", "value": {"summary": "Never"}}
        body = (json.dumps(header) + "\n" + json.dumps(line) + "\n").encode()
        parts = urlsplit(hub.endpoint)
        stored = hashlib.sha256(b"half of a commit").hexdigest()
        with socket.create_connection((parts.hostname, parts.port)) as connection:
            head = (
                f"POST /api/models/press/m/commit/main HTTP/1.1\r\nHost: localhost\r\n"
                f"Authorization: Bearer {client.write_token}\r\nContent-Length: {len(body) + 100}\r\n\r\n"
            )
            connection.sendall(head.encode() + body)
            while not (root / "objects" / stored[:2] / stored).exists():
                threading.Event().wait(0.01)
            os.kill(hub.pid, signal.SIGKILL)
    assert assert_whole(root) == 1
    with running_hub(root) as hub:
        answer = live(hub).send("GET", "/api/models/press/m/tree/main")
        assert [item["path"] for item in answer.json()] == [".gitattributes"]


def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    initialise(tmp_path)
    with pytest.raises(ZeroDivisionError), writing(tmp_path) as db:
        create_repo(db, "model", "press/m", private=False)
        raise ZeroDivisionError
    with reading(tmp_path) as db:
        assert list_repos(db, "model") == []


def test_one_folder_has_one_server(tmp_path: Path) -> None:
    with running_hub(tmp_path), pytest.raises(HubInUse, match="did not start"), running_hub(tmp_path):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "quantpress.localhub", "serve", "--root", str(tmp_path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and server.stderr is not None
        assert server.stdout.readline().startswith("Hub at http://127.0.0.1:")
        server.send_signal(number)
        assert server.wait(timeout=30) == 0
        assert server.stderr.read() == ""


def test_the_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from quantpress.localhub.server import running_hub\n"
        "with running_hub(Path(sys.argv[1])) as hub: print(hub.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    parent = subprocess.run(
        [sys.executable, "-c", script, tmp_path], check=False, capture_output=True, text=True, timeout=60
    )
    pid = int(parent.stdout)
    for _ in range(3000):
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (ProcessLookupError, FileNotFoundError):
            break
        if state == "Z":
            break
        threading.Event().wait(0.01)
    else:
        pytest.fail("the server outlived the process that started it")
