"""The endpoint for downloads of files, whole or in ranges: ``…/namespace/name/resolve/revision/path``."""

from __future__ import annotations

from pathlib import Path

from starlette.responses import FileResponse, Response

from quantpress.localhub import auth, history
from quantpress.localhub.addresses import repo_routes
from quantpress.localhub.context import Call, endpoint
from quantpress.localhub.database import reading
from quantpress.localhub.errors import entry_not_found, object_lost
from quantpress.localhub.history import TreeEntry
from quantpress.localhub.names import look_up_path

# Browsers show files with these endings as they are and download all others, because an HTML page in a repo must not
# run as a page of the Hub.
_SHOWN = {
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
    ".json": "application/json",
    **dict.fromkeys((".md", ".txt", ".yaml", ".yml", ".jinja", ".gitattributes"), "text/plain; charset=utf-8"),
}


class _ObjectResponse(FileResponse):
    chunk_size = 1 << 20  # bytes per read; each read costs a thread switch, and the default is 64 kB


def _headers(entry: TreeEntry, commit: str) -> dict[str, str]:
    headers = {
        "ETag": f'"{entry.sha256 if entry.lfs else entry.blob_id}"',
        "X-Repo-Commit": commit,
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
    }
    if entry.lfs:
        headers["X-Linked-Etag"] = f'"{entry.sha256}"'
        headers["X-Linked-Size"] = str(entry.size)
    return headers


def _resolve(call: Call) -> Response:
    with reading(call.hub.root) as db:
        repo = call.repo(db)
        auth.require_files(db, repo, call.identity(db))
        commit = call.commit(db, repo)
        path = look_up_path(call.param("path"), commit.oid)
        entry = history.read_tree(db, commit.tree).get(path)
    if entry is None:
        raise entry_not_found(f"Entry not found: {path}", commit.oid)
    if call.hub.store.size(entry.sha256) != entry.size:
        raise object_lost(path)
    headers = _headers(entry, commit.oid)
    if call.request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    name = Path(entry.path).name
    return _ObjectResponse(
        call.hub.store.path(entry.sha256),
        headers=headers,
        media_type=_SHOWN.get(Path(f"x{name}").suffix.lower(), "application/octet-stream"),
        filename=name,
        content_disposition_type="inline",
    )


ROUTES = [
    *repo_routes("/resolve/{revision}/{path:path}", endpoint(_resolve), ["GET", "HEAD"]),
]
