"""Runs one tool and writes each line of its output to the log.

The tool does not see the credentials in the user's shell, nor defaults for llama.cpp that are set there.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

from quantpress.errors import ChildFailed
from quantpress.machine.cause import cause_of_exit, cause_of_kill
from quantpress.machine.child import child_environment
from quantpress.machine.process import dies_with_parent
from quantpress.terminal import say

#: llama.cpp reads defaults of its options from environment variables with these prefixes. The tool must not see them,
#: because a recipe must not depend on them.
_TOOL_DEFAULTS = ("LLAMA_ARG_", "LLAMA_LOG_")
#: The end of a line is a newline, or the carriage return of a progress bar.
_LINE_END = re.compile(rb"[\r\n]")


def run_tool(
    command: list[str | Path],
    folder: Path,
    on_line: Callable[[str], None] = lambda line: None,
    environment: Mapping[str, str] | None = None,
    errors: Path | None = None,
) -> str:
    """Runs ``command`` in ``folder`` and returns what the command wrote to its standard output and its error output.

    If ``errors`` is given, the error output goes to that file instead, and is not returned. Each line is printed (into
    the log of this process) and then given to ``on_line``. If ``on_line`` raises an exception, the command is killed.
    The command also dies when this process dies. Raises :class:`ChildFailed`, with the cause and the last lines, if the
    command exits non-zero or is killed.
    """
    name = Path(command[0]).name
    kept = {key: value for key, value in child_environment().items() if not key.startswith(_TOOL_DEFAULTS)}
    with nullcontext(subprocess.STDOUT) if errors is None else errors.open("wb") as error_output:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=error_output,
            env=kept | dict(environment or {}),
            preexec_fn=dies_with_parent(),  # noqa: PLW1509 - system calls only, of a library that is loaded already
        )
    assert process.stdout is not None
    lines: list[str] = []
    try:
        with process.stdout as stream:
            rest = b""
            while piece := os.read(stream.fileno(), 1 << 16):
                *whole, rest = _LINE_END.split(rest + piece)
                for raw in whole:
                    _take(raw, lines, on_line)
            _take(rest, lines, on_line)
        code = process.wait()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if code != 0:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"
        if errors is not None:
            lines += errors.read_text(errors="replace").splitlines()
        find_cause = cause_of_kill if code < 0 else cause_of_exit
        cause = find_cause("\n".join(lines))
        raise ChildFailed(cause.said_of(f"{name} {how}"), cause.line)
    return "\n".join(lines)


def _take(raw: bytes, lines: list[str], on_line: Callable[[str], None]) -> None:
    line = raw.decode(errors="replace")
    if line:
        say(line)
    lines.append(line)
    on_line(line)
