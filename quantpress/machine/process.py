"""Starts process groups, waits for them and kills them. A group is a process and the tools that the process starts.

The kernel gives the number of a process to a new process once the old one was reaped, which means that its parent read
how it ended. So a group is killed before its first process is reaped. To wait without reaping, a :class:`ProcessGroup`
holds a pidfd, a descriptor of the process itself (pidfd_open(2), Linux 5.3).
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None)


@dataclass(frozen=True)
class ProcessGroup:
    """A running process group. ``process`` is its first process, and ``pidfd`` is a descriptor of that process."""

    process: subprocess.Popen[bytes]
    pidfd: int

    @property
    def number(self) -> int:
        """The group's number, which is also the number of the first process."""
        return self.process.pid

    def wait(self, seconds: float | None = None) -> bool:
        """Waits until the first process has ended, for at most ``seconds``. Returns whether it has ended.

        Does not reap the process, so the group's number stays taken.
        """
        ended = select.poll()
        ended.register(self.pidfd, select.POLLIN)
        return bool(ended.poll(None if seconds is None else max(0, round(seconds * 1000))))

    def end(self) -> int:
        """Kills all processes of the group that still run, and returns the exit code of the first process."""
        if self.process.returncode is None:
            os.killpg(self.number, signal.SIGKILL)
        return self.process.wait()


@contextmanager
def process_group(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path | None,
    output: IO[bytes] | int,
    enter_sandbox: Callable[[], None] | None = None,
) -> Iterator[ProcessGroup]:
    """Starts ``command`` in ``folder`` as the first process of a new group, and yields the group.

    Standard output and error output go to ``output``, a file or ``subprocess.PIPE``. At the end of the ``with`` block,
    all processes of the group are killed. The kernel kills the first process when this process dies. The first process
    calls ``enter_sandbox`` before its program starts.
    """
    ask = dies_with_parent()

    def begin() -> None:
        ask()
        if enter_sandbox is not None:
            enter_sandbox()

    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        cwd=folder,
        start_new_session=True,
        preexec_fn=begin,  # noqa: PLW1509 - system calls only, and libc is loaded before the fork
    )
    group = ProcessGroup(process, os.pidfd_open(process.pid))
    try:
        yield group
    finally:
        group.end()
        os.close(group.pidfd)


def dies_with_parent() -> Callable[[], None]:
    """Returns a function that a new process calls before its program starts. From then on, the kernel kills the new
    process when its parent, which is this process, dies for any reason.

    A parent can die before the new process asks for this signal. Then no signal comes. So the new process looks at its
    parent again after it asked.
    """
    parent = os.getpid()

    def ask() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    return ask
