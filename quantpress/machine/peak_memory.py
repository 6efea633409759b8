"""Reads the peak memory of this process from the kernel."""

from __future__ import annotations

from pathlib import Path


def own_peak_bytes() -> int:
    """Returns the peak RSS in bytes since this process started its program (``VmHWM`` of proc_pid_status(5)).

    ``ru_maxrss`` of getrusage(2) would be wrong here. ``ru_maxrss`` survives execve(2) (Linux, ``exec_mmap`` in
    fs/exec.c), so it includes the parent's memory at the fork. If the parent has 600 MB, each child seems to take at
    least 600 MB.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("every process with memory of its own has a VmHWM")
