"""Defines the request that handlers get (:class:`Call`), and makes the responses for their errors."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from quantpress.localhub import auth, history, repos
from quantpress.localhub.addresses import Handler, repo_type_of
from quantpress.localhub.auth import Identity
from quantpress.localhub.database import reading, signing_key
from quantpress.localhub.errors import HubError, bad_request, repo_not_found
from quantpress.localhub.history import Commit
from quantpress.localhub.names import is_unicode, look_up_repo_id
from quantpress.localhub.rendering import Cards
from quantpress.localhub.repos import Repo, RepoType
from quantpress.localhub.signing import Signer
from quantpress.localhub.storage import ObjectStore
from quantpress.localhub.uploads import Uploads

_Result = TypeVar("_Result")

# The most bytes of a body. A small one holds the fields of one thing, such as a repo or a branch. A list holds the
# names of at most 1,000 files. A card to be validated has at most 2 MiB, in JSON up to three times as much. Before a
# commit, a preupload request lists 256 files with 512 bytes of each, in about 300 kB.
SMALL_BODY, LIST_BODY, LARGE_BODY = 64 * 1024, 1024 * 1024, 8 * 1024 * 1024

# Requests without a token take at most this many of the 40 threads, so that many costly ones (such as trees with the
# last commit of each file) do not hold up clients with a token.
_THREADS_FOR_STRANGERS = 8


class Hub:
    """The state that all requests of one server share."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = ObjectStore(root)
        self.uploads = Uploads(self.store)
        self.signer = Signer(signing_key(root))
        self.cards = Cards()
        self.strangers = CapacityLimiter(_THREADS_FOR_STRANGERS)


@dataclass(frozen=True)
class Call:
    """One request, with its body already read."""

    hub: Hub
    request: Request
    body: bytes

    def param(self, name: str) -> str:
        """Returns the named part of the address, with percent-encoding decoded.

        Raises HubError (400) if the part is not UTF-8.
        """
        return decode(self.request.path_params[name])

    def query(self, name: str) -> list[str]:
        """Returns all values of a query parameter."""
        return self.request.query_params.getlist(name)

    def flag(self, name: str) -> bool:
        return self.request.query_params.get(name, "").lower() in ("1", "true")

    def limit(self) -> int | None:
        """Returns the most items that the client wants in a listing, or None if it wants all of them.

        Raises HubError (400) if the query's ``limit`` is not a number of at most 9 digits.
        """
        text = self.request.query_params.get("limit", "")
        if not text:
            return None
        if len(text) > 9 or not (text.isascii() and text.isdecimal()):
            raise bad_request("'limit' must be a number of at most 9 digits")
        return int(text)

    def json(self) -> dict[str, Any]:
        """Returns the body as a JSON object. Raises HubError (400) if the body is not a JSON object."""
        return parse_object(self.body)

    def form(self) -> dict[str, list[str]]:
        """Returns a dict from the names of the body's fields to their values. The body is a form or a JSON object.

        Raises HubError (400) if the body cannot be read, or if a value is neither a text, a number, true, false nor
        null, nor a list of texts.
        """
        if self.request.headers.get("content-type", "").startswith("application/json"):
            return {key: _field_values(key, value) for key, value in self.json().items()}
        try:
            return parse_qs(self.body.decode(), errors="strict", max_num_fields=5000)
        except ValueError as error:
            raise bad_request("The form cannot be read") from error

    @property
    def endpoint(self) -> str:
        """The address at which the client reached the Hub, without a trailing slash."""
        return str(self.request.base_url).rstrip("/")

    def identity(self, db: sqlite3.Connection) -> Identity | None:
        return auth.identify(db, self.request.headers.get("authorization"))

    @property
    def repo_type(self) -> RepoType:
        """The type of the repo in the address."""
        return repo_type_of(self.request.scope["path"])

    @property
    def repo_id(self) -> str:
        """The id of the repo in the address. Raises HubError (404) if the id is not valid."""
        return "/".join(look_up_repo_id(self.param("namespace"), self.param("name")))

    def repo(self, db: sqlite3.Connection) -> Repo:
        """Returns the repo in the address.

        Raises HubError: 401 for an unknown token, 404 if there is no such repo or the client may not see the repo.
        """
        identity = self.identity(db)
        repo = repos.find_repo(db, self.repo_type, *self.repo_id.split("/"))
        if repo is None:
            raise repo_not_found(self.repo_id)
        auth.require_visible(repo, identity)
        return repo

    def repo_to_write(self, db: sqlite3.Connection) -> Repo:
        """Returns the repo in the address, which the client wants to change.

        Raises HubError: 401 for a missing or unknown token, 403 if the token may only read, 404 if there is no such
        repo.
        """
        auth.require_write(self.identity(db))
        return self.repo(db)

    def commit(self, db: sqlite3.Connection, repo: Repo) -> Commit:
        """Returns the commit that the revision in the address names. Without a revision, this is the head of ``main``.

        Raises HubError (404) if there is no such commit.
        """
        revision = self.param("revision") if "revision" in self.request.path_params else "main"
        return history.resolve(db, repo, revision)

    def require_known(self) -> Identity:
        """Returns the user and the role of the client's token. Raises HubError (401) for a missing or unknown token."""
        with reading(self.hub.root) as db:
            return auth.require_identity(self.identity(db))

    def require_no_wrong_token(self) -> None:
        """Raises HubError (401) if the client sent an unknown token. A client without a token is welcome."""
        with reading(self.hub.root) as db:
            self.identity(db)

    def require_write(self) -> Identity:
        """Returns the user and the role of the client's token.

        Raises HubError: 401 for a missing or unknown token, 403 if the token may only read.
        """
        with reading(self.hub.root) as db:
            return auth.require_write(self.identity(db))


def decode(text: str) -> str:
    """Decodes percent-encoding. Raises HubError (400) if the decoded bytes are not UTF-8."""
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError as error:
        raise bad_request("The address is not UTF-8") from error


def parse_object(text: bytes) -> dict[str, Any]:
    """Parses a JSON object. If the text is empty, returns an empty object.

    Raises HubError (400) if the text is not a JSON object.
    """
    try:
        value = json.loads(text or b"{}")
    except (ValueError, RecursionError) as error:
        raise bad_request("The body is not JSON") from error
    if not isinstance(value, dict):
        raise bad_request("The body is not a JSON object")
    return value


def _field_values(key: str, value: object) -> list[str]:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    if isinstance(value, list | dict):
        raise bad_request(f"{key[:100]!r} must be a text or a list of texts")
    return [str(value)]


def text_field(source: dict[str, Any], key: str, default: str | None = None) -> str:
    """Returns the string under ``key`` in a JSON object, or ``default`` if the key is missing.

    Raises HubError (400) if the value is not a string, if the string holds half of a surrogate pair, or if the key is
    missing and there is no default.
    """
    value = source.get(key, default)
    if not isinstance(value, str):
        raise bad_request(f"'{key}' must be a string")
    if not is_unicode(value):
        raise bad_request(f"'{key}' is not valid Unicode")
    return value


async def read_body(request: Request, limit: int) -> bytes:
    """Reads the body. Raises HubError (413) as soon as the body exceeds ``limit`` bytes, or says that it will."""
    body = bytearray()
    if int(request.headers.get("content-length", 0)) > limit:
        raise HubError(413, f"The body is larger than {limit} bytes")
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise HubError(413, f"The body is larger than {limit} bytes")
    return bytes(body)


def hub_of(request: Request) -> Hub:
    hub: Hub = request.app.state.hub
    return hub


async def _in_thread(function: Callable[[Call], _Result], call: Call) -> _Result:
    # A wrong token does not help a stranger: it is refused as soon as the function looks at it.
    stranger = call.request.headers.get("authorization") is None
    return await to_thread.run_sync(function, call, limiter=call.hub.strangers if stranger else None)


def endpoint(handler: Callable[[Call], Response]) -> Handler:
    """Makes a route's handler from a plain function, which it runs in a thread. The request's body is not read."""

    async def serve(request: Request) -> Response:
        return await _in_thread(handler, Call(hub_of(request), request, b""))

    return serve


def body_endpoint(
    handler: Callable[[Call], Response], allow: Callable[[Call], object], limit: int = SMALL_BODY
) -> Handler:
    """Makes a route's handler from a plain function that needs the request's body, of at most ``limit`` bytes.

    The body is read only after ``allow`` has returned, so that clients who may not send it cannot fill the memory.
    """

    async def serve(request: Request) -> Response:
        await _in_thread(allow, Call(hub_of(request), request, b""))
        call = Call(hub_of(request), request, await read_body(request, limit))
        return await _in_thread(handler, call)

    return serve


def error_response(_: Request, error: Exception) -> Response:
    """Returns an error as a response in the form that the clients expect.

    This form is a JSON body with the headers X-Error-Code and X-Error-Message.
    """
    if not isinstance(error, HubError):
        raise error
    headers = dict(error.headers)
    # A header must be one line of ASCII. The message can hold a name from the client, with any characters.
    printable = error.message.encode("ascii", "backslashreplace").decode()
    headers["X-Error-Message"] = "".join(c if c.isprintable() else " " for c in printable)[:500]
    if error.code is not None:
        headers["X-Error-Code"] = error.code
    return JSONResponse({"error": error.message.encode(errors="replace").decode(), **error.body}, error.status, headers)
