"""The endpoints that list files and folders."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from starlette.responses import JSONResponse, Response

from quantpress.localhub import gitobjects, history
from quantpress.localhub.addresses import api_routes
from quantpress.localhub.context import LIST_BODY, Call, body_endpoint, endpoint
from quantpress.localhub.database import reading
from quantpress.localhub.errors import entry_not_found
from quantpress.localhub.history import Commit, TreeEntry
from quantpress.localhub.names import look_up_path
from quantpress.localhub.repos import Repo


def _file_json(entry: TreeEntry) -> dict[str, Any]:
    file: dict[str, Any] = {"type": "file", "oid": entry.blob_id, "size": entry.size, "path": entry.path}
    if entry.lfs:
        file["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}
    return file


def _items(files: dict[str, TreeEntry]) -> dict[str, dict[str, Any]]:
    """Returns a dict from the path of each file and folder of a tree to its JSON for the client.

    The root folder is left out.
    """
    folders = gitobjects.tree_ids({path: entry.blob_id for path, entry in files.items()})
    items = {path: {"type": "directory", "oid": oid, "size": 0, "path": path} for path, oid in folders.items() if path}
    items.update({path: _file_json(entry) for path, entry in files.items()})
    return items


def _with_last_commits(
    db: sqlite3.Connection, repo: Repo, head: Commit, items: Iterable[dict[str, Any]]
) -> list[dict[str, Any]]:
    items = list(items)
    commits = history.last_commits(db, repo, head, {item["path"] for item in items})
    return [
        {
            **item,
            "lastCommit": {
                "id": commits[item["path"]].oid,
                "title": commits[item["path"]].title,
                "date": commits[item["path"]].created_at,
            },
        }
        for item in items
    ]


def _tree(call: Call) -> Response:
    folder = call.param("path").rstrip("/") if "path" in call.request.path_params else ""
    with reading(call.hub.root) as db:
        repo = call.repo(db)
        commit = call.commit(db, repo)
        items = _items(history.read_tree(db, commit.tree))
        if folder:
            look_up_path(folder, commit.oid)
            if folder not in items:
                raise entry_not_found(f"{folder} does not exist on {call.repo_id}", commit.oid)
        inside = f"{folder}/" if folder else ""
        chosen = [
            item
            for path, item in sorted(items.items())
            if path.startswith(inside) and (call.flag("recursive") or "/" not in path[len(inside) :])
        ]
        if folder and items[folder]["type"] == "file":
            chosen = [items[folder]]
        if call.flag("expand"):
            chosen = _with_last_commits(db, repo, commit, chosen)
    return JSONResponse(chosen, headers={"X-Repo-Commit": commit.oid})


def _paths_info(call: Call) -> Response:
    form = call.form()
    with reading(call.hub.root) as db:
        repo = call.repo(db)
        commit = call.commit(db, repo)
        items = _items(history.read_tree(db, commit.tree))
        chosen = [items[path] for path in dict.fromkeys(form.get("paths", [])) if path in items]
        if form.get("expand", [""])[:1] in (["1"], ["true"], ["True"]):
            chosen = _with_last_commits(db, repo, commit, chosen)
    return JSONResponse(chosen)


ROUTES = [
    *api_routes("/tree/{revision}", endpoint(_tree), ["GET"]),
    *api_routes("/tree/{revision}/{path:path}", endpoint(_tree), ["GET"]),
    *api_routes("/paths-info/{revision}", body_endpoint(_paths_info, Call.require_no_wrong_token, LIST_BODY), ["POST"]),
]
