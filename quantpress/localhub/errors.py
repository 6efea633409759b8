"""Errors of the embedded Hub, in the form that the Hub's clients understand.

To choose the exception for a response, ``huggingface_hub`` looks at the header ``X-Error-Code`` (``RepoNotFound``,
``RevisionNotFound``, ``EntryNotFound``, ``GatedRepo``) before it looks at the status (``hf_raise_for_status`` in
``huggingface_hub/utils/_http.py``).
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Mapping

from quantpress.errors import QuantpressError


class HubError(QuantpressError):
    """The Hub refuses a request.

    ``message`` is one line of explanation. ``status`` is the response's HTTP status, and ``code`` its ``X-Error-Code``.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = dict(headers or {})
        self.body = dict(body or {})


class HubInUse(QuantpressError):
    """The Hub cannot start, for example because another server uses its folder or its port."""


def bad_request(message: str) -> HubError:
    return HubError(400, message, code="BadRequest")


def no_room(message: str) -> HubError:
    return HubError(507, f"No room on the Hub's disk: {message}")


def is_disk_full(error: Exception) -> bool:
    """Whether a write failed because the disk, or the user's share of it, is full."""
    if isinstance(error, sqlite3.OperationalError):
        # SQLite reports SHMSIZE if it cannot make the file that goes with the write-ahead log.
        return getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def object_lost(path: str) -> HubError:
    """Returns the error for a file of a commit whose bytes this Hub no longer has."""
    return HubError(410, f"The Hub has lost the bytes of {path[:200]!r}: upload the file again")


def repo_not_found(repo_id: str) -> HubError:
    return HubError(404, f"Repository not found: {repo_id}", code="RepoNotFound")


def revision_not_found(revision: str) -> HubError:
    return HubError(404, f"Invalid rev id: {revision}", code="RevisionNotFound")


def entry_not_found(message: str, commit: str | None = None) -> HubError:
    """Returns the error for a path that is not in the tree.

    If ``commit`` is given, the error names the commit. Clients can then remember that this commit lacks the path.
    """
    return HubError(404, message, code="EntryNotFound", headers={"X-Repo-Commit": commit} if commit else None)
