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


class Unreadable(QuantpressError):
    """What one repository says of itself cannot be read: it is damaged, of another version, or closed to this token.

    The Hub was reached; other repositories are none the worse.
    """


class ChildFailed(QuantpressError):
    """A child process crashed, was killed or reported an error; carries its last lines of output."""
