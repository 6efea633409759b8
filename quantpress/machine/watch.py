"""Watches a process group while it runs: for how long, how much memory it holds, and whether it gets on.

RLIMIT_AS would limit addresses, of which CUDA and mapped files take far more than memory. A control group would need
the right to make one, which a container does not give. So the press looks at the group itself, several times a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from quantpress.errors import QuantpressError
from quantpress.machine.memory import available_memory, total_memory
from quantpress.machine.process import ProcessGroup
from quantpress.machine.usage import Work, memory_of, memory_shared_out, processes_of, work_of

#: Seconds between two looks at the memory. Only a process that fills 5 GB in a second takes ``_LEAST_RESERVE`` between
#: two looks. The kernel ends such a process (``_ENDED_FIRST``).
_TICK = 0.1
#: Seconds between two looks at everything else.
_SLOW_TICK = 1.0
#: A group that uses less than this share of one core, writes no log and moves fewer bytes than ``_LEAST_MOVED`` does
#: not get on. Idle threads that wake up now and then stay below it.
_LEAST_SHARE = 0.01
_LEAST_MOVED = 1 << 20
#: How much memory the machine keeps: a 32nd of it, within these bounds.
_LEAST_RESERVE, _LARGEST_RESERVE = 512 << 20, 4 << 30
#: The kernel ends the process with the largest value first when no memory is left (proc(5)).
_ENDED_FIRST = "1000"
#: Bytes that each watched group held when it was last looked at.
_HELD: dict[int, int] = {}


@dataclass(frozen=True)
class Limits:
    """When a child is ended. ``seconds`` is how long it may run.

    ``memory`` is how many bytes its processes may hold. Always, a child is ended before it takes the machine's last
    memory. ``silence`` is for how many seconds it may neither use a core, nor write into its log, nor read or write
    files. None stands for no limit. The defaults suit a job of which nobody knows how long it takes: presses run every
    night, so after a day the child is in the way of the next.
    """

    seconds: float | None = 86_400
    memory: int | None = None
    silence: float | None = 1_800


def watch(group: ProcessGroup, limits: Limits, log: Path, look: Callable[[], None] = lambda: None) -> str | None:
    """Waits until the group's first process has ended, or until the group exceeds a limit. Calls ``look`` every second.

    Returns None, or, if a limit is exceeded, what the group did, as the end of a sentence. ``log`` is the file to which
    the group's output goes. Tells the kernel to end this group first if the machine's memory is used up.
    """
    with suppress(OSError):
        Path(f"/proc/{group.number}/oom_score_adj").write_text(_ENDED_FIRST)
    watched = _Watched(group, limits, log)
    try:
        while not group.wait(_TICK):
            if reason := watched.exceeded(look):
                return reason
        return None
    finally:
        _HELD.pop(group.number, None)


@dataclass
class _Watched:
    """A group, and what the last looks at it showed."""

    group: ProcessGroup
    limits: Limits
    log: Path
    processes: list[int] = field(default_factory=list)
    start: float = field(default_factory=time.monotonic)
    looked: float = float("-inf")
    got_on: float = field(default_factory=time.monotonic)
    work: Work = field(default_factory=lambda: Work(0, 0))
    written: int = 0

    def exceeded(self, look: Callable[[], None]) -> str | None:
        now = time.monotonic()
        if now - self.looked >= _SLOW_TICK or not self.processes:
            self.looked = now
            self.processes = processes_of(self.group.number)
            look()
            if self.limits.seconds is not None and now - self.start > self.limits.seconds:
                return f"ran longer than {duration(self.limits.seconds)}"
            if reason := self._silence(now):
                return reason
        return self._memory()

    def _silence(self, now: float) -> str | None:
        limit = self.limits.silence
        if limit is None:
            return None
        work, written = work_of(self.processes), self.log.stat().st_size
        used, moved = work.seconds - self.work.seconds, work.moved - self.work.moved
        # The sums fall when a process of the group ends. That is a step forward too.
        if written != self.written or not 0 <= used < _LEAST_SHARE * limit or not 0 <= moved < _LEAST_MOVED:
            self.got_on, self.work, self.written = now, work, written
        return f"did nothing for {duration(limit)}" if now - self.got_on > limit else None

    def _memory(self) -> str | None:
        held = _HELD[self.group.number] = memory_of(self.processes)
        limit = self.limits.memory
        if limit is not None and held > limit and memory_shared_out(self.processes) > limit:
            return f"took more than {limit / 1e9:.1f} GB of memory"
        reserve = _reserve()
        if held > reserve and held == max(_HELD.values()):
            with suppress(QuantpressError, OSError):
                left = available_memory()
                if left < reserve:
                    return f"took {held / 1e9:.1f} GB of memory and left {left / 1e9:.1f} GB to the machine"
        return None


def _reserve() -> int:
    return min(max(_LEAST_RESERVE, total_memory() // 32), _LARGEST_RESERVE)


def duration(seconds: float) -> str:
    """Returns a duration in words: ``1 s``, ``30 min``, ``2.5 h``."""
    if seconds < 120:
        return f"{seconds:g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
