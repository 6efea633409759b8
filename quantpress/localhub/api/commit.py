"""The endpoints for preupload and commit.

Before a commit, the client sends a preupload to learn which files it must upload as LFS objects.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from quantpress.localhub import history
from quantpress.localhub.addresses import api_routes, repo_address
from quantpress.localhub.commits import (
    Add,
    CommitRequest,
    Copy,
    DeleteFile,
    DeleteFolder,
    Operation,
    commit,
    lfs_entry,
    regular_entry,
    require_stored,
)
from quantpress.localhub.context import LARGE_BODY, Call, Hub, body_endpoint, hub_of, parse_object, text_field
from quantpress.localhub.database import reading, writing
from quantpress.localhub.errors import HubError, bad_request
from quantpress.localhub.gitobjects import is_lfs_pointer
from quantpress.localhub.names import check_path
from quantpress.localhub.uploadmode import LARGE_FILE, is_lfs

# In the body of a commit, one line carries one file in base64. A line has at most this many bytes. A file that needs a
# longer line must be an LFS object.
_MAX_LINE_BYTES = 4 * LARGE_FILE // 3 + 65536
_MAX_OPERATIONS = 25_000
_MAX_MESSAGE = 64 * 1024  # every listing of commits has all of them


def _file_size(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise bad_request("'size' must be a number of bytes")
    return value


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise bad_request("The content is not base64") from error


def _preupload(call: Call) -> Response:
    files = call.json().get("files")
    if not isinstance(files, list) or not all(isinstance(file, dict) for file in files):
        raise bad_request("'files' must be a list of objects")
    with reading(call.hub.root) as db:
        repo = call.repo_to_write(db)
        tree = history.read_tree(db, call.commit(db, repo).tree)
    answers = []
    for file in files:
        path = check_path(text_field(file, "path"))
        lfs = is_lfs(path, _file_size(file.get("size")), _decoded(text_field(file, "sample", "")))
        answer: dict[str, Any] = {"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
        present = tree.get(path)
        # An object that is missing or cut short is asked for again, so that the client's upload heals it.
        if present is not None and call.hub.store.size(present.sha256) == present.size:
            # If this id equals the id that the client computed, the client skips the file.
            answer["oid"] = present.sha256 if present.lfs else present.blob_id
        answers.append(answer)
    return JSONResponse({"files": answers})


def _operation(hub: Hub, key: str, value: dict[str, Any]) -> Operation:
    match key:
        case "file":
            content = text_field(value, "content")
            encoding = value.get("encoding", "utf-8")
            data = _decoded(content) if encoding == "base64" else content.encode()
            # Git has the same id for a pointer and for the LFS file that it points to. A tree with the pointer as a
            # regular file would take the place of each tree with the real file.
            if is_lfs_pointer(data):
                raise bad_request("A file of the commit is the pointer of an LFS file: upload the file itself")
            hub.uploads.require_room(len(data))
            return Add(regular_entry(hub.store, text_field(value, "path"), data))
        case "lfsFile":
            size = _file_size(value["size"]) if value.get("size") is not None else None
            return Add(lfs_entry(hub.store, text_field(value, "path"), text_field(value, "oid"), size))
        case "deletedFile":
            return DeleteFile(check_path(text_field(value, "path")))
        case "deletedFolder":
            return DeleteFolder(check_path(text_field(value, "path").removesuffix("/")))
        case "copyFile":
            revision = value.get("srcRevision")
            return Copy(
                check_path(text_field(value, "srcPath")),
                check_path(text_field(value, "path")),
                text_field(value, "srcRevision") if revision is not None else None,
            )
    raise bad_request(f"Unknown operation in commit: {key[:40]!r}")


async def _lines(request: Request) -> AsyncIterator[bytes]:
    """Yields the lines of the body as they arrive, without empty lines. Raises HubError (413) if a line is too long."""
    pending = bytearray()
    async for chunk in request.stream():
        pending += chunk
        if b"\n" in chunk:
            *complete, rest = pending.split(b"\n")
            pending = bytearray(rest)
            for line in complete:
                if line.strip():
                    yield bytes(line)
        if len(pending) > _MAX_LINE_BYTES:
            raise HubError(413, "A file in the commit is too large: it must be uploaded as an LFS object")
    if pending.strip():
        yield bytes(pending)


async def _commit(request: Request) -> Response:
    """Handles a commit, whose body is NDJSON: one JSON object on each line.

    Stores the files while the body arrives. Then makes the commit in one transaction.
    """
    call = Call(hub_of(request), request, b"")
    identity = await run_in_threadpool(call.require_write)
    if call.flag("create_pr"):
        raise bad_request("This Hub has no pull requests: commit to a branch")
    header: dict[str, Any] | None = None
    operations: list[Operation] = []
    async for line in _lines(request):
        item = parse_object(line)
        key, value = text_field(item, "key"), item.get("value")
        if not isinstance(value, dict):
            raise bad_request("'value' must be an object")
        if key == "header":
            header = value
        else:
            operations.append(await run_in_threadpool(_operation, call.hub, key, value))
        if len(operations) > _MAX_OPERATIONS:
            raise HubError(413, f"A commit has at most {_MAX_OPERATIONS} operations")
    if header is None:
        raise bad_request("The commit has no header")
    title, message = text_field(header, "summary"), text_field(header, "description", "")
    if len(title) + len(message) > _MAX_MESSAGE:
        raise bad_request(f"The summary and the description of a commit have at most {_MAX_MESSAGE} characters")
    wanted = CommitRequest(
        branch=call.param("revision"),
        title=title,
        message=message,
        author=identity.user,
        operations=operations,
        parent=text_field(header, "parentCommit") if header.get("parentCommit") is not None else None,
    )

    def apply() -> str:
        with writing(call.hub.root) as db:
            repo = call.repo_to_write(db)
            require_stored(call.hub.store, operations)
            return commit(db, repo, wanted).oid

    oid = await run_in_threadpool(apply)
    return JSONResponse(
        {
            "success": True,
            "commitOid": oid,
            "commitUrl": f"{call.endpoint}{repo_address(call.repo_type, call.repo_id)}/commit/{oid}",
            "hookOutput": "",
        }
    )


ROUTES = [
    *api_routes("/preupload/{revision}", body_endpoint(_preupload, Call.require_write, LARGE_BODY), ["POST"]),
    *api_routes("/commit/{revision}", _commit, ["POST"]),
]
