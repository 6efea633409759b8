"""A request as the handlers see it, and the responses for their errors."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from quantpress.localhub import auth, history, repos
from quantpress.localhub.addresses import Handler, repo_type_of
from quantpress.localhub.auth import Identity
from quantpress.localhub.database import reading, signing_key
from quantpress.localhub.errors import HubError, bad_request, repo_not_found
from quantpress.localhub.history import Commit
from quantpress.localhub.names import look_up_repo_id
from quantpress.localhub.repos import Repo, RepoType
from quantpress.localhub.signing import Signer
from quantpress.localhub.storage import ObjectStore
from quantpress.localhub.uploads import Uploads

# A preupload of 256 files with 512 bytes of each is about 300 kB. Cards to validate are smaller.
MAX_BODY_BYTES = 8 * 1024 * 1024


class Hub:
    """The state that all requests of one server share."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = ObjectStore(root)
        self.uploads = Uploads(self.store)
        self.signer = Signer(signing_key(root))


@dataclass(frozen=True)
class Call:
    """One request, with its body already read."""

    hub: Hub
    request: Request
    body: bytes

    def param(self, name: str) -> str:
        """Returns a part of the address, decoded. Raises HubError (400) if it is not UTF-8."""
        return decode(self.request.path_params[name])

    def query(self, name: str) -> list[str]:
        """Returns all values of a query parameter."""
        return self.request.query_params.getlist(name)

    def flag(self, name: str) -> bool:
        return self.request.query_params.get(name, "").lower() in ("1", "true")

    def json(self) -> dict[str, Any]:
        """Returns the body as a JSON object. Raises HubError (400)."""
        return parse_object(self.body)

    def form(self) -> dict[str, list[str]]:
        """Returns the body's fields, from a form or a JSON object. Raises HubError (400)."""
        if self.request.headers.get("content-type", "").startswith("application/json"):
            return {key: value if isinstance(value, list) else [str(value)] for key, value in self.json().items()}
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
        """The type of the repo at this address."""
        return repo_type_of(self.request.scope["path"])

    @property
    def repo_id(self) -> str:
        """The id of the repo in the address. Raises HubError (404) if it is not a valid repo id."""
        return "/".join(look_up_repo_id(self.param("namespace"), self.param("name")))

    def repo(self, db: sqlite3.Connection) -> Repo:
        """Returns the repo in the address, if the client may see it. Raises HubError (401, 404)."""
        identity = self.identity(db)
        repo = repos.find_repo(db, self.repo_type, *self.repo_id.split("/"))
        if repo is None:
            raise repo_not_found(self.repo_id)
        auth.require_visible(repo, identity)
        return repo

    def repo_to_write(self, db: sqlite3.Connection) -> Repo:
        """Returns the repo in the address, if the client may change it. Raises HubError (401, 403, 404)."""
        auth.require_write(self.identity(db))
        return self.repo(db)

    def commit(self, db: sqlite3.Connection, repo: Repo) -> Commit:
        """Returns the commit that the revision in the address stands for. Raises HubError (404)."""
        revision = self.param("revision") if "revision" in self.request.path_params else "main"
        return history.resolve(db, repo, revision)

    def require_write(self) -> Identity:
        """Returns the token's holder, if the token may write. Raises HubError (401, 403)."""
        with reading(self.hub.root) as db:
            return auth.require_write(self.identity(db))


def decode(text: str) -> str:
    """Decodes percent-encoding. Raises HubError (400) if the result is not UTF-8."""
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError as error:
        raise bad_request("The address is not UTF-8") from error


def parse_object(text: bytes) -> dict[str, Any]:
    """Parses a JSON object; an empty text is an empty object. Raises HubError (400)."""
    try:
        value = json.loads(text or b"{}")
    except (ValueError, RecursionError) as error:
        raise bad_request("The body is not JSON") from error
    if not isinstance(value, dict):
        raise bad_request("The body is not a JSON object")
    return value


def text_field(source: dict[str, Any], key: str, default: str | None = None) -> str:
    """Returns a string from a JSON object, or ``default``. Raises HubError (400) if it is missing or not a string."""
    value = source.get(key, default)
    if not isinstance(value, str):
        raise bad_request(f"'{key}' must be a string")
    return value


async def read_body(request: Request, limit: int = MAX_BODY_BYTES) -> bytes:
    """Reads the body. Raises HubError (413) as soon as the body exceeds ``limit`` bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise HubError(413, f"The body is larger than {limit} bytes")
    return bytes(body)


def hub_of(request: Request) -> Hub:
    hub: Hub = request.app.state.hub
    return hub


def endpoint(handler: Callable[[Call], Response]) -> Handler:
    """Makes a plain function a route: reads the body first, then runs the function in a thread."""

    async def serve(request: Request) -> Response:
        call = Call(hub_of(request), request, await read_body(request))
        return await run_in_threadpool(handler, call)

    return serve


def error_response(_: Request, error: Exception) -> Response:
    """Returns an error in the form that the clients expect: JSON body, X-Error-Code, X-Error-Message."""
    if not isinstance(error, HubError):
        raise error
    headers = dict(error.headers)
    # A header must be one line of ASCII. The message may hold a name from the client, with any characters.
    printable = error.message.encode("ascii", "backslashreplace").decode()
    headers["X-Error-Message"] = "".join(c if c.isprintable() else " " for c in printable)[:500]
    if error.code is not None:
        headers["X-Error-Code"] = error.code
    return JSONResponse({"error": error.message.encode(errors="replace").decode(), **error.body}, error.status, headers)
