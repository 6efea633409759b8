"""The expected errors, in words that an operator can act on.

Every error is one line: what is wrong, where, and what to do. ``exit_code`` is the exit status of the command line
(1 failed, 2 bad input).
"""

from __future__ import annotations


class QuantpressError(Exception):
    """A failure, explained in one line."""

    exit_code = 1


class BadInput(QuantpressError):
    """The user's input is wrong: catalog, settings or arguments. Nothing was started."""

    exit_code = 2


class Refused(QuantpressError):
    """A format or variant that this model or this machine cannot have. Found before any work."""


class Unreadable(QuantpressError):
    """A repository's record cannot be read: it is damaged, of another version, or closed to this token.

    The Hub was reached, and other repositories are not affected.
    """


class ChildFailed(QuantpressError):
    """A child process crashed, was killed or reported an error. Holds the last lines of its output."""
