"""Prints to the terminal. Everything that the command line and the flows print passes here.

A name, a message or a model's text can come from a stranger. Control characters in it could clear the screen, forge
lines, or set the clipboard. So they are taken out, and characters that hide or reorder text too. Line breaks and tabs
stay.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from quantpress.text import plain_lines

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment


def say(text: str, *, error: bool = False) -> None:
    """Prints a text and a line break to standard output, or with ``error`` to standard error."""
    print(plain_lines(text), file=sys.stderr if error else sys.stdout, flush=True)


def console(*, error: bool = False) -> Console:
    """Returns a Rich console for tables and coloured lines. It takes no text for markup or for names of emojis."""
    from rich.console import Console
    from rich.segment import Segment

    class PlainConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            # A segment with ``control`` is a code of Rich's own, such as one that moves the cursor.
            for text, style, control in super().render(renderable, options):
                yield Segment(text if control else plain_lines(text), style, control)

    return PlainConsole(markup=False, emoji=False, stderr=error)


class PlainRecords(logging.Filter):
    """Makes the message of each log record plain, as :func:`say` does."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = plain_lines(record.getMessage()), ()
        return True


def print_plain_logs() -> None:
    """Makes what the root logger prints plain. Prefect prints the lines of all its loggers there (its logging.yml).

    A second call changes nothing.
    """
    for handler in logging.getLogger().handlers:
        if not any(isinstance(each, PlainRecords) for each in handler.filters):
            handler.addFilter(PlainRecords())
