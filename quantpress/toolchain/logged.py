"""Runs a long build. Its output goes to a log, and a progress is reported meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from quantpress.errors import QuantpressError
from quantpress.machine.cause import cause_of_exit
from quantpress.machine.process import process_group
from quantpress.machine.watch import Limits, watch

#: The longest build of ours, ExLlamaV3's 177 CUDA files, took more than 400 s on 14 jobs. One job at a time takes some
#: 2 h.
_LIMITS = Limits(seconds=12 * 3600)


def run_logged(
    command: Sequence[str], environment: Mapping[str, str], log: Path, what: str, look: Callable[[], None]
) -> None:
    """Runs ``command`` in the folder of ``log``, adds its output to ``log``, and calls ``look`` every second.

    ``what`` says what the command does. Raises :class:`QuantpressError`, with the cause, if the command
    fails, takes too long or takes too much memory.
    """
    with log.open("ab") as written, process_group(command, environment, log.parent, written) as group:
        exceeded = watch(group, _LIMITS, log, look)
        code = group.end()
    if exceeded is not None:
        raise QuantpressError(f"{what} was ended because it {exceeded} (log: {log})")
    if code != 0:
        how = f"{what} failed with exit code {code}"
        raise QuantpressError(cause_of_exit(log.read_text(errors="replace")).said_of(how, log))
