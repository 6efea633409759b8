"""Checks names that come from clients: repo ids, revisions, paths in a repo, object ids.

Clients can send any text as a name. A name that this module accepts cannot lead out of its folder and cannot be
confused with another name. An accepted name fits into a git tree and into the client's own cache folders.
"""

from __future__ import annotations

import re

from quantpress.localhub.errors import HubError, bad_request, entry_not_found, repo_not_found

# The rule of huggingface_hub/utils/_validators.py: 1 to 96 characters of [A-Za-z0-9._-], with a word character at both
# ends.
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# What the name of a ref (a branch or a tag) must not contain (git help check-ref-format).
_NOT_IN_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")

# The first segments of the server's own addresses. No namespace may have one of these names.
RESERVED_NAMESPACES = frozenset({"api", "datasets", "lfs", "models", "spaces", "v2"})

MAX_PATH_BYTES = 1024
MAX_SEGMENT_BYTES = 255  # NAME_MAX of the file systems to which clients download
MAX_REF_BYTES = 200


def _is_name(text: str) -> bool:
    return (
        _NAME.fullmatch(text) is not None
        and "--" not in text  # the client's cache joins namespace and name with "--"
        and ".." not in text
        and not text.endswith(".git")
    )


def check_repo_id(repo_id: str) -> tuple[str, str]:
    """Splits a repo id ``namespace/name`` into its two parts. Raises HubError (400) if it is not a valid repo id."""
    parts = repo_id.split("/")
    if len(parts) != 2 or not all(_is_name(part) for part in parts) or parts[0] in RESERVED_NAMESPACES:
        raise bad_request(f"Repo id must be 'namespace/name' of letters, digits, '-', '_' and '.': {repo_id[:200]!r}")
    return parts[0], parts[1]


def look_up_repo_id(namespace: str, name: str) -> tuple[str, str]:
    """Does the same as check_repo_id, for the namespace and the name in an address.

    Raises HubError (404) instead of 400, because no repo has an invalid id.
    """
    try:
        return check_repo_id(f"{namespace}/{name}")
    except HubError as error:
        raise repo_not_found(f"{namespace}/{name}"[:200]) from error


def check_user(user: str) -> str:
    """Returns the name of a user or an organization, unchanged. Raises HubError (400) if the name is invalid."""
    if not _is_name(user) or user in RESERVED_NAMESPACES:
        raise bad_request(f"Not a user name: {user[:200]!r}")
    return user


def is_unicode(text: str) -> bool:
    """Whether the text can be written as UTF-8. JSON and YAML can hold half of a surrogate pair, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _path_fault(path: str) -> str | None:
    if not is_unicode(path):
        return "is not valid Unicode"
    if len(path.encode()) > MAX_PATH_BYTES:
        return f"is longer than {MAX_PATH_BYTES} bytes"
    if "\\" in path or _CONTROL.search(path):
        return "holds a backslash or a control character"
    return next((fault for segment in path.split("/") if (fault := _segment_fault(segment))), None)


def _segment_fault(segment: str) -> str | None:
    if segment in ("", ".", ".."):
        return "holds an empty, '.' or '..' segment"
    if segment.lower() == ".git":
        return "holds a '.git' segment"
    if len(segment.encode()) > MAX_SEGMENT_BYTES:
        return f"holds a segment longer than {MAX_SEGMENT_BYTES} bytes"
    return None


def check_path(path: str) -> str:
    """Returns the path of a file or folder inside a repo, unchanged. Raises HubError (400) if the path is invalid."""
    fault = _path_fault(path)
    if fault is not None:
        raise bad_request(f"Path {path[:200]!r} {fault}")
    return path


def look_up_path(path: str, commit: str) -> str:
    """Does the same as check_path, for the path in an address.

    Raises HubError (404) instead of 400, because no tree holds an invalid path.
    """
    if _path_fault(path) is not None:
        raise entry_not_found(f"Entry not found: {path[:200]!r}", commit)
    return path


def check_ref_name(name: str) -> str:
    """Returns the name of a branch or tag, unchanged. Raises HubError (400) if the name is invalid."""
    segments = name.split("/")
    if (
        not is_unicode(name)
        or len(name.encode()) > MAX_REF_BYTES
        or name == "@"
        or name.startswith("-")
        or segments[0] == "refs"
        or is_commit(name)  # history.resolve() would read this name as a commit id
        or _NOT_IN_REF.search(name)
        or any(s == "" or s.startswith(".") or s.endswith((".", ".lock")) for s in segments)
    ):
        raise bad_request(f"Not a valid name for a branch or tag: {name[:200]!r}")
    return name


def is_commit(revision: str) -> bool:
    """Whether ``revision`` is a full commit id (40 lower-case hexadecimal digits)."""
    return _COMMIT.fullmatch(revision) is not None


def check_sha256(oid: str) -> str:
    """Returns an object's id, unchanged. Raises HubError (400) if the id is not 64 lower-case hexadecimal digits."""
    if not isinstance(oid, str) or not is_sha256(oid):
        raise bad_request(f"Not a SHA-256: {str(oid)[:100]!r}")
    return oid


def is_sha256(text: str) -> bool:
    """Whether the text is 64 lower-case hexadecimal digits."""
    return _SHA256.fullmatch(text) is not None
