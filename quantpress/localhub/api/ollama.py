"""The endpoints from which Ollama pulls: ``/v2/namespace/name/manifests/tag`` and ``…/blobs/sha256:…``."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from quantpress.localhub import auth, history
from quantpress.localhub.context import Call, endpoint
from quantpress.localhub.database import reading
from quantpress.localhub.errors import HubError, entry_not_found, object_lost
from quantpress.localhub.history import DEFAULT_BRANCH, TreeEntry
from quantpress.localhub.ollama import MANIFEST_TYPE, find_config, manifest
from quantpress.record.clients import is_part

_HEADERS = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox"}


def _files(call: Call, db: sqlite3.Connection) -> Mapping[str, TreeEntry]:
    """Returns a dict from the path of each file of ``main`` to its entry.

    Raises HubError if the client may not read the files.
    """
    repo = call.repo(db)
    auth.require_files(db, repo, call.identity(db))
    return history.read_tree(db, history.resolve(db, repo, DEFAULT_BRANCH).tree)


def _manifest(call: Call) -> Response:
    with reading(call.hub.root) as db:
        files = _files(call, db)
    tag = call.param("tag")
    try:
        found = manifest(files, call.hub.store, tag)
    except OSError as error:
        raise object_lost(tag) from error
    if found is None:
        # Ollama shows the field "error" of the answer (server/images.go, pullModelManifest).
        raise HubError(400, f"The specified tag is not available in the repository: {tag[:100]}")
    if is_part(found["ggufFile"]["rfilename"]):
        raise HubError(400, "The specified tag is a sharded GGUF, which Ollama does not support")
    return JSONResponse(found, media_type=MANIFEST_TYPE)


def _blob(call: Call) -> Response:
    with reading(call.hub.root) as db:
        files = _files(call, db)
    digest = call.param("digest")
    headers = {**_HEADERS, "Docker-Content-Digest": digest}
    entry = next((entry for entry in files.values() if f"sha256:{entry.sha256}" == digest), None)
    if entry is not None:
        if call.hub.store.size(entry.sha256) != entry.size:
            raise object_lost(entry.path)
        return FileResponse(call.hub.store.path(entry.sha256), headers=headers, media_type="application/octet-stream")
    config = find_config(files, call.hub.store, digest)
    if config is None:
        raise entry_not_found(f"No blob of this repo: {digest[:100]}")
    return Response(config, headers=headers, media_type="application/octet-stream")


ROUTES = [
    Route("/v2/{namespace}/{name}/manifests/{tag}", endpoint(_manifest), methods=["GET", "HEAD"]),
    Route("/v2/{namespace}/{name}/blobs/{digest}", endpoint(_blob), methods=["GET", "HEAD"]),
]
