"""Clients that keep the Hub waiting, over real sockets, with deadlines of a second instead of many."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uvicorn

from quantpress.localhub.app import create_app
from quantpress.localhub.auth import create_token
from quantpress.localhub.deadlines import Deadlines, server_config
from quantpress.localhub.storage import ObjectStore

if TYPE_CHECKING:
    from tests.quantpress.localhub.conftest import LiveHub

SHORT = Deadlines(head=1, body=1, rate=100_000, rest=1, reading=1)
COMMIT = "/api/models/press/m/commit/main"
POSTS = [
    "/api/validate-yaml", "/api/repos/create", "/api/repos/move", "/api/collections", COMMIT,
    "/api/models/press/m/preupload/main", "/api/models/press/m/branch/b", "/api/models/press/m/tag/main",
    "/press/m.git/info/lfs/objects/batch", "/press/m.git/info/lfs/objects/verify",
]  # fmt: skip


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int, Path]]:
    """A Hub in a thread of this process: its host, its port and its folder."""
    root = tmp_path_factory.mktemp("slow") / "root"
    server = uvicorn.Server(server_config(create_app(root, deadlines=SHORT), SHORT))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield ("127.0.0.1", listener.getsockname()[1], root)
        server.should_exit = True
        thread.join()


def _until_closed(connection: socket.socket) -> tuple[bytes, float]:
    """Reads until the server closes. Returns what came, and after how many seconds it closed."""
    started, received = time.monotonic(), b""
    connection.settimeout(120)
    try:
        while chunk := connection.recv(1 << 20):
            received += chunk
    except ConnectionResetError:
        pass
    return received, time.monotonic() - started


def _head(address: str, length: int, token: str | None = None, method: str = "POST") -> bytes:
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"{method} {address} HTTP/1.1\r\nHost: localhost\r\n{authorization}Content-Length: {length}\r\n\r\n".encode()


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: b"])
def test_half_a_header_is_not_waited_for(address: tuple[str, int, Path], sent: bytes) -> None:
    with socket.create_connection(address[:2]) as connection:
        connection.sendall(sent)
        assert _until_closed(connection)[1] < 60


def test_a_header_that_drips_is_not_waited_for(address: tuple[str, int, Path]) -> None:
    started = time.monotonic()
    with socket.create_connection(address[:2]) as connection, pytest.raises(OSError, match=r"reset|pipe"):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: ")
        while time.monotonic() - started < 120:
            connection.sendall(b"a")
            time.sleep(0.2)
    assert time.monotonic() - started < 60


def test_half_a_body_is_answered_with_408(address: tuple[str, int, Path]) -> None:
    token = create_token(address[2], "press", "write")
    for path in ("/api/validate-yaml", COMMIT):
        with socket.create_connection(address[:2]) as connection:
            connection.sendall(_head(path, 1000, token) + b'{"a"')
            received, seconds = _until_closed(connection)
        assert received.startswith(b"HTTP/1.1 408 "), received[:200]
        assert seconds < 60


def test_an_answer_that_nobody_reads_is_given_up(address: tuple[str, int, Path]) -> None:
    host, port, root = address
    token = create_token(root, "press", "write")

    def ask(path: str, body: bytes, method: str = "POST") -> bytes:
        with socket.create_connection((host, port)) as connection:
            connection.sendall(_head(path, len(body), token, method) + body)
            return connection.recv(65536)

    assert b" 200 " in ask("/api/repos/create", json.dumps({"name": "big"}).encode())
    oid = ObjectStore(root).add(os.urandom(40_000_000))
    value = {"path": "big.bin", "oid": oid, "size": 40_000_000}
    lines = [{"key": "header", "value": {"summary": "x"}}, {"key": "lfsFile", "value": value}]
    body = b"\n".join(json.dumps(line).encode() for line in lines)
    assert b" 200 " in ask("/api/models/press/big/commit/main", body)
    with socket.create_connection((host, port)) as connection:
        connection.sendall(_head("/press/big/resolve/main/big.bin", 0, None, "GET"))
        time.sleep(5)
        received, seconds = _until_closed(connection)
    assert len(received) < 40_000_000 and seconds < 60


@pytest.mark.parametrize("path", POSTS)
def test_who_may_not_write_is_answered_before_the_body(live_hub: LiveHub, path: str) -> None:
    """The body is announced and never sent, so only a Hub that does not wait for it can answer."""
    host, _, port = live_hub.hub.endpoint.removeprefix("http://").partition(":")
    refused = {None: b"401", live_hub.read_token: b"403"} if path != POSTS[0] else {None: b"401"}
    for token, status in refused.items():
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(_head(path, 8_000_000, token))
            assert connection.recv(65536).split()[1] == status


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(live_hub: LiveHub) -> None:
    host, _, port = live_hub.hub.endpoint.removeprefix("http://").partition(":")
    for path, length in (("/api/repos/create", 100_000), ("/api/models/press/m/paths-info/main", 2_000_000),
                         ("/api/validate-yaml", 10_000_000)):  # fmt: skip
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(_head(path, length, live_hub.write_token))
            assert connection.recv(65536).split()[1] == b"413"


def test_many_idle_connections_are_bounded_and_pass(address: tuple[str, int, Path]) -> None:
    """The Hub closes what is beyond its bound at once, and the others when their header does not come."""
    idle = [socket.create_connection(address[:2]) for _ in range(450)]
    deadline = time.monotonic() + 60
    answer = b""
    while not answer.startswith(b"HTTP/1.1 200 ") and time.monotonic() < deadline:
        with socket.create_connection(address[:2], timeout=60) as connection, suppress(ConnectionError):
            connection.sendall(_head("/api/models", 0, None, "GET"))
            answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200 ")
    for each in idle:
        assert _until_closed(each)[0] == b""
        each.close()


def test_a_long_summary_is_refused(live_hub: LiveHub) -> None:
    body = json.dumps({"key": "header", "value": {"summary": "x" * 100_000}}).encode()
    assert live_hub.send("POST", COMMIT, token=live_hub.write_token, body=body).status == 400
