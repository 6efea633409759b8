"""Reports the progress of long work: with a bar in a terminal, with plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from quantpress.terminal import console, say

#: A function that is called with a description of the work, the steps done and the total of steps. If the total is not
#: known, it is 0.
Progress = Callable[[str, int, int], None]

#: The least number of seconds between two plain lines about the same work.
_PLAIN_INTERVAL = 20.0


def silent(what: str, done: int, total: int) -> None:
    """Reports nothing."""


def remaining_seconds(elapsed: float, done: int, total: int) -> float | None:
    """Estimates the seconds left from the average time of a step. Returns None before the first step is done."""
    return elapsed / done * (total - done) if done > 0 else None


def plain_lines(write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> Progress:
    """Returns a :data:`Progress` that writes whole lines.

    It writes a line at the start and at the end of each piece of work, and at most one every 20 seconds in between.
    """
    started: dict[str, float] = {}
    last: dict[str, float] = {}

    def report(what: str, done: int, total: int) -> None:
        now = clock()
        begun = started.setdefault(what, now)
        if what in last and now - last[what] < _PLAIN_INTERVAL and done != total:
            return
        last[what] = now
        if not total:
            write(what)
            return
        left = remaining_seconds(now - begun, done, total)
        estimate = f", about {left:.0f} s left" if left is not None and done != total else ""
        write(f"{what}: {done}/{total}{estimate}")

    return report


@contextmanager
def shown() -> Iterator[Progress]:
    """Yields a :data:`Progress` for standard error: a Rich bar if standard error is a terminal, else plain lines."""
    if not sys.stderr.isatty():
        yield plain_lines(lambda line: say(line, error=True))
        return
    from rich import progress as rich_progress

    bar = rich_progress.Progress(
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeRemainingColumn(),
        console=console(error=True),
    )
    tasks: dict[str, rich_progress.TaskID] = {}

    def report(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=total or None)
        bar.update(tasks[what], completed=done, total=total or None)

    with bar:
        yield report
