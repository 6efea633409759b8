"""The expected errors, in words that an operator can act on.

A message has one line per mistake: what is wrong, where, and what to do. Some messages then quote the last lines of a
program's output. ``exit_code`` is the exit status of the command line (1 failed, 2 bad input).
"""

from __future__ import annotations

from quantpress.text import one_line


class QuantpressError(Exception):
    """An expected failure. The message explains the failure, so no traceback is shown."""

    exit_code = 1


class BadInput(QuantpressError):
    """The user's input is wrong: catalog, settings or arguments. Nothing was started."""

    exit_code = 2


class Refused(QuantpressError):
    """quantpress cannot or must not do something, such as make a format of this model on this machine.

    The obstacle is found before the work on that thing starts.
    """


class Unreadable(QuantpressError):
    """A repository's record cannot be read: the record is damaged, of another version, or closed to this token.

    The Hub was reached, and other repositories are not affected.
    """


class Unreachable(QuantpressError):
    """A Hub cannot be reached, is too busy, or is not a Hub. So nothing else can be read from it now."""


class ChildFailed(QuantpressError):
    """A child process crashed, was killed or reported an error. The message quotes the child's output.

    ``cause`` is the line of the output that names the cause, or empty.
    """

    def __init__(self, message: str, cause: str = "") -> None:
        super().__init__(message)
        self.cause = cause


def in_words(error: Exception) -> str:
    """Returns why something failed, in one line. Names the type of an error that nobody expected."""
    if isinstance(error, QuantpressError):
        return str(error)
    said = one_line(str(error))
    return f"{type(error).__name__}{': ' if said else ''}{said} (unexpected: report it with the name of the repository)"
