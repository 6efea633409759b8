"""Runs Python programs in processes that have their libraries imported already: ``server.py SOCKET LIBRARIES NAMES``.

``LIBRARIES`` are the names of modules, and ``NAMES`` are beginnings of the names of variables that these modules read
when they are imported. Both are separated by commas.

The server imports the libraries once and forks a process for each program. The program's code is the same, and so are
its arguments, folder, environment and outputs. The program is in a process group of its own, which dies with the
process that handed the program over. If a variable with one of ``NAMES`` has another value there than in the server,
the server runs nothing. Only Python's hash seed differs: all programs of a server share one.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

_LONGEST_JOB = 1 << 20
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(address: str, libraries: str, names: str) -> dict[str, Any]:
    """Serves until this process is killed. Returns only in a forked process, with its job."""
    _die_with_parent()
    read_at_import = tuple(names.split(","))
    environment = _named(os.environ, read_at_import)  # imports change os.environ
    for library in libraries.split(","):
        import_module(library)
    gc.freeze()
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.bind(f"{address}.tmp")
    server.listen(64)
    Path(f"{address}.tmp").rename(address)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        client, _ = server.accept()
        if os.fork() == 0:
            server.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _die_with_parent()
            return _begin(client, environment, read_at_import)
        client.close()


def _begin(client: socket.socket, environment: dict[str, str], names: tuple[str, ...]) -> dict[str, Any]:
    """Forks the child and watches both it and the client. Returns in the child alone. If the child's variables with
    ``names`` are not ``environment``, it forks none."""
    message, outputs, _, _ = socket.recv_fds(client, _LONGEST_JOB, 3)
    if not message or _named(json.loads(message)["environment"], names) != environment:
        os._exit(0)
    child = os.fork()
    if child == 0:
        client.close()
        os.setsid()
        _die_with_parent()
        for number, output in enumerate(outputs):
            os.dup2(output, number)
            os.close(output)
        job: dict[str, Any] = json.loads(message)
        return job
    for output in outputs:
        os.close(output)
    ended = os.pidfd_open(child)
    found, _, _ = select.select([ended, client], [], [])
    with suppress(ProcessLookupError):
        if client in found:
            os.killpg(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.killpg(child, signal.SIGKILL)
    with suppress(OSError):
        client.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _named(environment: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(names)}


def _run(job: dict[str, Any]) -> None:
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    _, *command = job["command"]
    if command[0] == "-m":
        _, module, *arguments = command
        sys.argv = [module, *arguments]
        sys.path[0] = job["folder"]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv = command
        sys.path[0] = str(Path(command[0]).parent)
        runpy.run_path(command[0], run_name="__main__")


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    _run(main(*sys.argv[1:]))
