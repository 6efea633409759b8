"""Identifies the client, and decides what the client may do.

A client with a token may read everything that is not gated, private repos included. If the token has the role
``write``, the client may also change every repo and read gated files. The Hub stores only the SHA-256 hashes of tokens.
A plain hash is enough, because a token has 228 random bits (40 letters from an alphabet of 52).
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quantpress.localhub.database import initialise, writing
from quantpress.localhub.errors import HubError, repo_not_found
from quantpress.localhub.names import check_user
from quantpress.localhub.repos import Repo, has_grant, now

Role = Literal["read", "write"]

# llama.cpp drops a token that does not start with "hf_" or is shorter than 37 characters.
_TOKEN_LETTERS = 40
_ID_LETTERS = 16  # of the token's hash: 64 bits, which no two tokens share
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

# If the text is exactly this one, huggingface_hub concludes that the token is wrong. With another text, huggingface_hub
# would report a missing repo (huggingface_hub/utils/_http.py).
_INVALID_CREDENTIALS = "Invalid credentials in Authorization header"


@dataclass(frozen=True)
class Identity:
    """Who the client is. ``token_id`` names the client's token, and cannot be used in its place."""

    user: str
    role: Role
    token_id: str


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def create_token(root: Path, user: str, role: Role) -> str:
    """Makes a token for the Hub in ``root`` and returns it, whether the Hub is running or not.

    The token cannot be read again, because only its hash is stored. Raises HubError for a bad user name.
    """
    check_user(user)
    initialise(root)
    token = "hf_" + "".join(secrets.choice(_ALPHABET) for _ in range(_TOKEN_LETTERS))
    with writing(root) as db:
        db.execute("INSERT INTO tokens VALUES (?, ?, ?, ?)", (_hash(token), user, role, now()))
    return token


def revoke_tokens(root: Path, user: str) -> int:
    """Deletes all tokens of a user. Returns the number of deleted tokens."""
    initialise(root)
    with writing(root) as db:
        return db.execute("DELETE FROM tokens WHERE user = ?", (user,)).rowcount


def identify(db: sqlite3.Connection, authorization: str | None) -> Identity | None:
    """Returns the user and the role of the token in an Authorization header, or None if there is no header.

    Raises HubError (401) if the header holds no token that the Hub knows.
    """
    if not authorization:
        return None
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() == "bearer":
        hashed = _hash(token.strip())
        row = db.execute("SELECT user, role FROM tokens WHERE hash = ?", (hashed,)).fetchone()
        if row is not None:
            return Identity(row["user"], row["role"], hashed[:_ID_LETTERS])
    raise HubError(401, _INVALID_CREDENTIALS)


def require_token(db: sqlite3.Connection, token_id: str) -> None:
    """Raises HubError (403) if the token with this id may not write, for example because it was revoked."""
    row = db.execute(
        "SELECT 1 FROM tokens WHERE role = 'write' AND substr(hash, 1, ?) = ?", (_ID_LETTERS, token_id)
    ).fetchone()
    if row is None:
        raise HubError(403, "The token that asked for this upload address is revoked: ask for the upload again")


def require_identity(identity: Identity | None) -> Identity:
    """Returns ``identity``. Raises HubError (401) if it is None, because the client sent no token."""
    if identity is None:
        raise HubError(401, "Invalid username or password: this needs a token")
    return identity


def require_write(identity: Identity | None) -> Identity:
    """Returns ``identity``. Raises HubError: 401 without a token, 403 if the token may only read."""
    known = require_identity(identity)
    if known.role != "write":
        raise HubError(403, f"The token of {known.user} may only read; this needs one with role write")
    return known


def require_visible(repo: Repo, identity: Identity | None) -> None:
    """Raises HubError (404) if the client may not see the repo.

    A client without a token gets the same answer for a private repo as for a missing repo.
    """
    if repo.private and identity is None:
        raise repo_not_found(repo.repo_id)


def _may_read(db: sqlite3.Connection, repo: Repo, identity: Identity) -> bool:
    """Whether the user may read the files of a gated repo.

    Every user with the role ``write`` may read them, because these users can gate the repo and must not lock themselves
    out.
    """
    return identity.role == "write" or identity.user == repo.namespace or has_grant(db, repo, identity.user)


def require_files(db: sqlite3.Connection, repo: Repo, identity: Identity | None) -> None:
    """Raises HubError (403, GatedRepo) if the repo is gated and the user may not read its files.

    Three kinds of users may read the files: the repo's owner, users who may change the repo, and users who were granted
    access.
    """
    if repo.gated is None or (identity is not None and _may_read(db, repo, identity)):
        return
    raise HubError(
        403,
        f"Access to {repo.repo_type} {repo.repo_id} is restricted and you are not in the authorized list.",
        code="GatedRepo",
    )
