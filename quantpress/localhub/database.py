"""The Hub's SQLite database: repos, refs, commits, trees, tokens.

Each transaction has its own connection, and each change is one transaction. The write-ahead log lets readers continue
while a commit is written. A tree lists all files of a commit, and its key is git's tree id. Commits with the same
content share one tree.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from quantpress.localhub.errors import HubError, is_disk_full, no_room
from quantpress.localhub.ownership import make_private
from quantpress.localhub.storage import ObjectStore

SCHEMA_VERSION = 1
_FILE = "hub.sqlite3"

_SCHEMA = """
CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE tokens (
    hash TEXT PRIMARY KEY,
    user TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('read', 'write')),
    created_at TEXT NOT NULL
);
CREATE TABLE repos (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    private INTEGER NOT NULL DEFAULT 0,
    gated TEXT CHECK (gated IN ('auto', 'manual')),
    created_at TEXT NOT NULL,
    UNIQUE (namespace, name)
);
CREATE TABLE grants (
    repo INTEGER NOT NULL REFERENCES repos (id) ON DELETE CASCADE,
    user TEXT NOT NULL,
    PRIMARY KEY (repo, user)
);
CREATE TABLE trees (id TEXT PRIMARY KEY);
CREATE TABLE tree_entries (
    tree TEXT NOT NULL REFERENCES trees (id) ON DELETE CASCADE,
    path TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size INTEGER NOT NULL,
    blob_id TEXT NOT NULL,
    lfs INTEGER NOT NULL,
    PRIMARY KEY (tree, path)
) WITHOUT ROWID;
CREATE TABLE commits (
    repo INTEGER NOT NULL REFERENCES repos (id) ON DELETE CASCADE,
    oid TEXT NOT NULL,
    tree TEXT NOT NULL REFERENCES trees (id),
    parent TEXT,
    author TEXT NOT NULL,
    title TEXT NOT NULL,
    message TEXT NOT NULL,
    created_at TEXT NOT NULL,
    PRIMARY KEY (repo, oid),
    FOREIGN KEY (repo, parent) REFERENCES commits (repo, oid) DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX commits_by_tree ON commits (tree);
CREATE TABLE refs (
    repo INTEGER NOT NULL REFERENCES repos (id) ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('branch', 'tag')),
    name TEXT NOT NULL,
    target TEXT NOT NULL,
    message TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (repo, kind, name),
    FOREIGN KEY (repo, target) REFERENCES commits (repo, oid) DEFERRABLE INITIALLY DEFERRED
);
"""


def is_hub(root: Path) -> bool:
    """Whether a Hub keeps its data in the folder."""
    return (root / _FILE).is_file()


def connect(root: Path) -> sqlite3.Connection:
    """Opens a connection in autocommit mode. For transactions, use reading() or writing()."""
    connection = sqlite3.connect(root / _FILE, isolation_level=None, timeout=60)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


@contextmanager
def _saying_if_full() -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        if is_disk_full(error):
            raise no_room("free some, then try again") from error
        raise


@contextmanager
def reading(root: Path) -> Iterator[sqlite3.Connection]:
    """Opens a connection whose reads all see the database in the same state.

    Raises HubError (507) if the disk is so full that the database cannot even be opened.
    """
    with _saying_if_full(), closing(connect(root)) as connection:
        connection.execute("BEGIN")
        yield connection
        connection.execute("ROLLBACK")


@contextmanager
def writing(root: Path) -> Iterator[sqlite3.Connection]:
    """Runs the ``with`` block as one transaction: the database keeps either all changes of the block or none.

    Raises HubError (507) if the disk is full.
    """
    with _saying_if_full(), closing(connect(root)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            if connection.in_transaction:  # SQLite itself rolls back if the disk is full
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def initialise(root: Path) -> None:
    """Makes the folder and its database if they do not exist. Several processes may do this at the same time.

    Raises HubError if another version of this program wrote the database, or if the disk is full.
    """
    with _saying_if_full():
        make_private(root, _FILE)
        ObjectStore(root).prepare()
    with _saying_if_full(), closing(connect(root)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    with writing(root) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute("INSERT INTO settings VALUES ('signing_key', ?)", (secrets.token_hex(32),))
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        elif version != SCHEMA_VERSION:
            raise HubError(
                500,
                f"{root}: the Hub's database has version {version}, this program wants {SCHEMA_VERSION}; "
                "use the program that wrote it, or another folder",
            )


def signing_key(root: Path) -> bytes:
    """Returns the secret that signs upload addresses. It stays the same across restarts."""
    with reading(root) as connection:
        row = connection.execute("SELECT value FROM settings WHERE key = 'signing_key'").fetchone()
    return bytes.fromhex(row["value"])
