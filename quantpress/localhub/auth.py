"""Who is asking, and what they may do.

A token reads everything that is not gated, private repos included; a token with role ``write`` may also
change every repo, and reads what is gated too. Only SHA-256 hashes of tokens are kept: they are 240 random bits, so a
plain hash will do.
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

# llama.cpp drops tokens that are not "hf_" and at least 37 characters.
_TOKEN_LETTERS = 40
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

# The client tells a wrong token from a missing repo by this very text (huggingface_hub/utils/_http.py).
_INVALID_CREDENTIALS = "Invalid credentials in Authorization header"


@dataclass(frozen=True)
class Identity:
    user: str
    role: Role


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def create_token(root: Path, user: str, role: Role) -> str:
    """Make a token for the Hub in ``root``, whether it is being served or not. It is shown only once.

    Raises HubError for a bad user name.
    """
    check_user(user)
    initialise(root)
    token = "hf_" + "".join(secrets.choice(_ALPHABET) for _ in range(_TOKEN_LETTERS))
    with writing(root) as db:
        db.execute("INSERT INTO tokens VALUES (?, ?, ?, ?)", (_hash(token), user, role, now()))
    return token


def revoke_tokens(root: Path, user: str) -> int:
    """Delete all tokens of a user; returns how many there were."""
    initialise(root)
    with writing(root) as db:
        return db.execute("DELETE FROM tokens WHERE user = ?", (user,)).rowcount


def identify(db: sqlite3.Connection, authorization: str | None) -> Identity | None:
    """The holder of the token in an Authorization header; None without a header.

    Raises HubError (401) for a token that the Hub does not know.
    """
    if not authorization:
        return None
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() == "bearer":
        row = db.execute("SELECT user, role FROM tokens WHERE hash = ?", (_hash(token.strip()),)).fetchone()
        if row is not None:
            return Identity(row["user"], row["role"])
    raise HubError(401, _INVALID_CREDENTIALS)


def require_identity(identity: Identity | None) -> Identity:
    """Raises HubError (401) for nobody."""
    if identity is None:
        raise HubError(401, "Invalid username or password: this needs a token")
    return identity


def require_write(identity: Identity | None) -> Identity:
    """Raises HubError: 401 without a token, 403 where the token may only read."""
    known = require_identity(identity)
    if known.role != "write":
        raise HubError(403, f"The token of {known.user} may only read; this needs one with role write")
    return known


def require_visible(repo: Repo, identity: Identity | None) -> None:
    """Raises HubError (404): to those who may not see it, a private repo does not exist."""
    if repo.private and identity is None:
        raise repo_not_found(repo.repo_id)


def _may_read(db: sqlite3.Connection, repo: Repo, identity: Identity) -> bool:
    """Whether the files of a gated repo are open to the user. Whoever may gate it must not shut themselves out."""
    return identity.role == "write" or identity.user == repo.namespace or has_grant(db, repo, identity.user)


def require_files(db: sqlite3.Connection, repo: Repo, identity: Identity | None) -> None:
    """Raises HubError (403, GatedRepo) if the repo is gated and the user neither owns it, nor may change it, nor was
    granted access."""
    if repo.gated is None or (identity is not None and _may_read(db, repo, identity)):
        return
    raise HubError(
        403,
        f"Access to {repo.repo_type} {repo.repo_id} is restricted and you are not in the authorized list.",
        code="GatedRepo",
    )
