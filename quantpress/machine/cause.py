"""Finds in a program's log why the program failed, so that the error's message can begin with the cause.

The end of a log rarely holds the cause. A Python program ends with the frames of a traceback, and its exception's line
can be followed by other output. llama.cpp's tools end with the frames of a C++ backtrace.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_QUOTED_LINES = 8
#: The most characters of a line that is quoted, and of the line that names the cause.
_LONGEST_LINE = 300
_TRACEBACK = "Traceback (most recent call last):"
#: Matches an exception's own line, the first line after the frames: ``package.Name: message``, or the name alone.
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(?::\s.*)?")
#: Matches the lines with which a C++ program gives up, the clearest first: ``GGML_ASSERT`` and ``GGML_ABORT`` print
#: ``file:line: message`` (ggml_abort in ggml/src/ggml.c), and libstdc++ prints the message of an uncaught exception.
_NATIVE = (
    re.compile(r"\S+\.(?:c|h|cpp|hpp|cc|cu|cuh):\d+: .+"),
    re.compile(r"\s*what\(\):\s+\S.*"),
    re.compile(r"terminate called .+"),
)
#: Matches a frame of a backtrace that glibc or gdb prints, and what gdb says around the frames.
_NATIVE_FRAME = re.compile(
    r"\s*(?:#\d+\s|\[0x[0-9a-f]+\]|\S+\([^()]*\+0x[0-9a-f]+\)\s*\[0x)|\[(?:New LWP|Inferior) |\[Thread debugging using"
)
#: Matches what transformers says while it loads weights: each tensor of its load report that the checkpoint lacks, does
#: not need or has in another shape (utils/loading_report.py), and the sentences of older versions.
_LOADING = re.compile(r".*\|\s*(?:MISSING|UNEXPECTED|MISMATCH|CONVERSION)\s*(?:\|.*)?|Some weights of .+")
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True)
class Cause:
    """Why a program failed.

    ``line`` is the exception's own line, or the line with which a C++ program gives up. It is empty if the log has
    neither. ``quoted`` are indented lines for an error's message: what was said when weights were loaded, and then the
    log's last lines without frames.
    """

    line: str
    quoted: str

    def said_of(self, failure: str, log: Path | None = None) -> str:
        """Returns an error's message: the cause first if there is one, then ``failure``, then the quoted lines.

        ``log`` is the file that holds the whole log, if it is kept.
        """
        if self.line:
            head = f"{self.line} ({failure}, log: {log})" if log else f"{self.line} ({failure})"
        else:
            head = f"{failure} (log: {log})" if log else failure
        return f"{head}\n{self.quoted}" if self.quoted else head


def cause_of_exit(log: str) -> Cause:
    """Returns why a program ended by itself with an error. ``log`` is all that it wrote."""
    exception, rest = _exception(_lines(log))
    return _cause(exception or _native(rest), rest)


def cause_of_kill(log: str) -> Cause:
    """Returns why a program was killed by a signal. ``log`` is all that it wrote.

    A traceback in the log is not the cause, because the program caught that exception and went on.
    """
    lines = _lines(log)
    return _cause(_native(lines), lines)


def _lines(log: str) -> list[str]:
    return [_ANSI.sub("", line).rstrip() for line in log.splitlines()]


def _cause(line: str, lines: list[str]) -> Cause:
    lines = [each for each in lines if each.strip() and not _NATIVE_FRAME.match(each)]
    loading = [each for each in lines if _LOADING.fullmatch(each)]
    last = [each for each in lines if each not in loading and each not in line][-_QUOTED_LINES:]
    quoted = "\n".join(f"  | {each[-_LONGEST_LINE:]}" for each in [*_some(loading), *last])
    return Cause(_short(line.strip()), quoted)


def _short(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…"


def _some(loading: list[str]) -> list[str]:
    """Returns the first lines, and says how many more there are."""
    more = len(loading) - _QUOTED_LINES
    return loading if more <= 0 else [*loading[:_QUOTED_LINES], f"and {more} more such tensors"]


def _exception(lines: list[str]) -> tuple[str, list[str]]:
    """Returns the line of the last exception whose traceback the log holds, or an empty string. Also returns the log's
    lines without tracebacks and exceptions' lines."""
    found, rest, inside = "", [], False
    for line in lines:
        if line.strip() == _TRACEBACK:
            inside = True
        elif not inside:
            rest.append(line)
        elif line and not line[0].isspace():
            inside = False
            if _EXCEPTION.fullmatch(line):
                found = line
            else:
                rest.append(line)
    return found, rest


def _more(line: str, following: list[str]) -> list[str]:
    """Returns the line in which a message goes on that ends with a colon. llama.cpp's Jinja quotes the template first,
    and then says what is wrong (common/jinja/runtime.h)."""
    if not line.endswith(":"):
        return []
    return [each for each in following if each.startswith("Error: ")][:1] or following[:1]


def _native(lines: list[str]) -> str:
    for pattern in _NATIVE:
        for place in reversed(range(len(lines))):
            if pattern.fullmatch(lines[place]):
                return " ".join([lines[place], *_more(lines[place], lines[place + 1 :])])
    return ""
