"""The peak memory of this process."""

from __future__ import annotations

from pathlib import Path


def own_peak_bytes() -> int:
    """Returns the peak RSS in bytes since the program was started (``VmHWM`` of proc_pid_status(5)).

    It does not use ``ru_maxrss`` of getrusage(2), which survives execve(2) (Linux, ``exec_mmap`` in fs/exec.c) and so
    includes what the parent had when it forked. A child of a parent of 600 MB never seems to take less.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("every process with memory of its own has a VmHWM")
