"""What can go wrong, in words an operator can act on.

Every error is one line: what is wrong, where, what to do. ``exit_code`` is the process exit status of
the command line (1 failed, 2 bad input).
"""

from __future__ import annotations


class QuantpressError(Exception):
    """A failure that is explained in one line."""

    exit_code = 1


class BadInput(QuantpressError):
    """The user's input is wrong: catalog, settings or arguments. Nothing was started."""

    exit_code = 2


class Refused(QuantpressError):
    """A format or variant that this model or this machine cannot have; found before any work."""


class ChildFailed(QuantpressError):
    """A child process crashed, was killed or reported an error; carries its last lines of output."""
