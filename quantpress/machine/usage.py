"""Tells what the processes of a group use: memory, CPU time, and bytes read and written. Reads proc(5)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
#: Fields of ``/proc/PID/stat`` after the program's name: the number of the group, and CPU time in ticks, in user mode
#: and in the kernel.
_GROUP, _USER, _KERNEL = 2, 11, 12
_TICKS = os.sysconf("SC_CLK_TCK")
#: Memory that only the end of its process frees. Pages of mapped files are left out, because the kernel drops them when
#: it needs memory: a model of llama.cpp is such a file.
_HELD = re.compile(r"^(?:RssAnon|RssShmem|VmSwap):\s+(\d+) kB$", re.MULTILINE)
#: The same memory. A page that n processes share counts 1/n for each of them.
_HELD_ALONE = re.compile(r"^(?:Pss_Anon|Pss_Shmem|SwapPss):\s+(\d+) kB$", re.MULTILINE)
_MOVED = re.compile(r"^(?:rchar|wchar|read_bytes|write_bytes): (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Work:
    """What processes have done: seconds of CPU time, and bytes that they read and wrote."""

    seconds: float
    moved: int


def processes_of(group: int) -> list[int]:
    """Returns the numbers of the processes in a group."""
    numbers = (int(name) for name in os.listdir(_PROC) if name.isdigit())  # noqa: PTH208 - five times a second
    return [number for number in numbers if (found := _stat(number)) and int(found[_GROUP]) == group]


def memory_of(processes: Iterable[int]) -> int:
    """Returns the bytes that processes hold. Memory that they share is counted for each of them."""
    return sum(_sum(process, "status", _HELD) for process in processes) << 10


def memory_shared_out(processes: Iterable[int]) -> int:
    """Returns the bytes that processes hold. Memory that they share is counted once.

    This takes the kernel longer than :func:`memory_of`, because it looks at every page.
    """
    return sum(_sum(process, "smaps_rollup", _HELD_ALONE) for process in processes) << 10


def work_of(processes: Iterable[int]) -> Work:
    """Returns what processes have done so far."""
    ticks = moved = 0
    for process in processes:
        if found := _stat(process):
            ticks += int(found[_USER]) + int(found[_KERNEL])
            moved += _sum(process, "io", _MOVED)
    return Work(ticks / _TICKS, moved)


def _stat(process: int) -> list[str]:
    """Returns the fields of ``/proc/PID/stat`` after the program's name, which can hold spaces and brackets."""
    return _read(process, "stat").rpartition(")")[2].split()


def _sum(process: int, file: str, pattern: re.Pattern[str]) -> int:
    return sum(int(number) for number in pattern.findall(_read(process, file)))


def _read(process: int, file: str) -> str:
    """Returns a file of a process, or an empty text if the process has ended or does not show the file."""
    try:
        return (_PROC / str(process) / file).read_text(errors="replace")
    except OSError:
        return ""
