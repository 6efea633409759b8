"""Runs the embedded Hub: in this process until a signal arrives, or in a child process during a ``with`` block."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from quantpress.errors import BadInput
from quantpress.localhub.auth import Role, create_token
from quantpress.localhub.database import connect, initialise
from quantpress.localhub.errors import HubInUse
from quantpress.machine.credentials import harmless_environment

_ADDRESS_PREFIX = "Hub at "
_STOP_SECONDS = 15


@dataclass(frozen=True)
class RunningHub:
    """A Hub in a child process."""

    endpoint: str
    root: Path
    pid: int

    def create_token(self, user: str, role: Role) -> str:
        """Makes a token for this Hub and returns it."""
        return create_token(self.root, user, role)


@contextmanager
def _terminate_like_interrupt() -> Iterator[None]:
    """Makes SIGTERM end the ``with`` block as SIGINT does.

    Neither signal is an error, so no exception leaves the block.
    """

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        pass  # after an orderly shutdown, uvicorn raises the signal again
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _only_server(root: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(root / "serve.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise HubInUse(f"{root}: another Hub is serving this folder; stop it, or use its address") from error
    try:
        yield
    finally:
        lock.release()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol must be given, because asyncio sets TCP_NODELAY only on sockets whose protocol is TCP. Without
    # TCP_NODELAY, every answer waits 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise HubInUse(f"{host}:{port}: cannot listen there ({error.strerror}); use another --port") from error
    return listener


def serve(root: Path, host: str, port: int, names: Collection[str] = ()) -> None:
    """Serves the Hub in ``root`` until SIGINT or SIGTERM arrives, and prints its address. Port 0 means any free port.

    Clients may call the Hub by ``host``, by ``names``, by ``localhost`` and by IP addresses.

    Call this function in the main thread, because signals arrive there.

    Raises HubInUse if the folder or the port is taken, HubError if another version of this program wrote the folder's
    database or if the disk is full, BadInput if the folder cannot be written to.
    """
    import uvicorn

    from quantpress.localhub.app import create_app
    from quantpress.localhub.deadlines import USUAL, server_config

    class AnnouncedServer(uvicorn.Server):
        """Prints the address as soon as the server listens at the address and handles signals."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            print(f"{_ADDRESS_PREFIX}{address}", flush=True)

    try:
        initialise(root)
    except (OSError, sqlite3.OperationalError) as error:
        raise BadInput(f"{root}: cannot hold a Hub's data ({error}); give another folder by --root") from None
    with (
        _terminate_like_interrupt(),
        _only_server(root),
        closing(_listen(host, port)) as listener,
        closing(connect(root)) as keeper,
    ):
        # When the last connection closes, SQLite merges the write-ahead log into the database. This connection stays
        # open, so that SQLite does not do this after each request.
        keeper.execute("PRAGMA user_version")
        config = server_config(create_app(root, {host, *names}), USUAL)
        address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        AnnouncedServer(config).run(sockets=[listener])


def stop_with_parent() -> None:
    """Shuts this process down in an orderly way when its standard input closes.

    The standard input closes when the parent process dies.
    """

    def wait() -> None:
        sys.stdin.buffer.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def running_hub(root: Path, port: int = 0) -> Iterator[RunningHub]:
    """Serves the Hub in ``root`` on 127.0.0.1 in a child process during a ``with`` block.

    The child ends when the block ends or when this process ends. If the Hub does not start, raises HubInUse with the
    child's exit status and the first line of its standard output.
    """
    command = [sys.executable, "-m", "quantpress.localhub", "serve", "--root", str(root), "--port", str(port)]
    child = subprocess.Popen(
        [*command, "--stop-with-parent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None,
        env=harmless_environment(),
        text=True,
    )
    assert child.stdout is not None and child.stdin is not None
    try:
        first = child.stdout.readline().strip()
        if not first.startswith(_ADDRESS_PREFIX):
            child.wait()
            raise HubInUse(f"{root}: the Hub did not start (exit status {child.returncode}): {first}")
        yield RunningHub(first.removeprefix(_ADDRESS_PREFIX), root, child.pid)
    finally:
        child.stdin.close()
        try:
            child.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()
