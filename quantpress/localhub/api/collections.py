"""The endpoints for collections of models."""

from __future__ import annotations

import sqlite3
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from quantpress.localhub import auth, collections, repos
from quantpress.localhub.collections import Collection
from quantpress.localhub.context import Call, body_endpoint, endpoint, text_field
from quantpress.localhub.database import reading, writing
from quantpress.localhub.errors import bad_request

#: A listing shows only this many items of each collection, as on the public Hub.
_LISTED_ITEMS = 4


def _json(db: sqlite3.Connection, call: Call, found: Collection, most: int | None = None) -> dict[str, Any]:
    known = call.identity(db) is not None
    items = [
        {
            "_id": item.id,
            "position": position,
            "type": "model",
            "id": item.repo_id,
            "author": item.namespace,
            "private": item.private,
            **({} if item.note is None else {"note": {"text": item.note, "html": ""}}),
        }
        for position, item in enumerate(collections.items(db, found, private=known))
    ]
    return {
        "slug": found.slug,
        "title": found.title,
        **({} if found.description is None else {"description": found.description}),
        "lastUpdated": found.updated_at,
        "gating": False,
        "owner": {"_id": found.owner, "name": found.owner, "fullname": found.owner, "type": "user"},
        "items": items[:most],
        "theme": "orange",
        "private": found.private,
        "upvotes": 0,
        "isUpvotedByUser": False,
    }


def _found(db: sqlite3.Connection, call: Call) -> Collection:
    """Returns the collection in the address.

    Raises HubError (404) if there is no such collection or the client may not see it.
    """
    found = collections.get(db, call.param("namespace"), call.param("slug"))
    if found.private and call.identity(db) is None:
        raise collections.not_found(call.param("namespace"), call.param("slug"))
    return found


def _note(body: dict[str, Any]) -> str | None:
    return None if body.get("note") is None else text_field(body, "note")


def _description(body: dict[str, Any], current: str | None) -> str | None:
    return current if body.get("description") is None else text_field(body, "description")


def _list(call: Call) -> Response:
    wanted = [item.removeprefix("models/") for item in call.query("item")]
    with reading(call.hub.root) as db:
        known = call.identity(db) is not None
        shown = collections.find(db, call.query("owner"), wanted, private=known)[: call.limit()]
        # The answer holds no positions, because the client numbers the collections of a listing itself.
        return JSONResponse([_json(db, call, each, _LISTED_ITEMS) for each in shown])


def _create(call: Call) -> Response:
    identity = call.require_write()
    body = call.json()
    owner = text_field(body, "namespace", identity.user)
    with writing(call.hub.root) as db:
        made = collections.create(
            db,
            owner,
            text_field(body, "title"),
            description=_description(body, None),
            private=bool(body.get("private", False)),
        )
        return JSONResponse(_json(db, call, made) | {"position": 0})


def _get(call: Call) -> Response:
    with reading(call.hub.root) as db:
        return JSONResponse(_json(db, call, _found(db, call)) | {"position": 0})


def _change(call: Call) -> Response:
    call.require_write()
    body = call.json()
    with writing(call.hub.root) as db:
        before = _found(db, call)
        after = collections.update(
            db,
            before,
            title=text_field(body, "title", before.title),
            description=_description(body, before.description),
            private=bool(body.get("private", before.private)),
        )
        return JSONResponse({"success": True, "data": _json(db, call, after) | {"position": 0}})


def _delete(call: Call) -> Response:
    call.require_write()
    with writing(call.hub.root) as db:
        collections.delete(db, _found(db, call))
    return JSONResponse({"success": True})


def _add(call: Call) -> Response:
    call.require_write()
    body = call.json()
    item = body.get("item")
    if not isinstance(item, dict) or item.get("type") != "model":
        raise bad_request("'item' must have the type 'model': a collection of this Hub holds models only")
    with writing(call.hub.root) as db:
        repo = repos.get_repo(db, text_field(item, "id"))
        auth.require_visible(repo, call.identity(db))
        after = collections.add_item(db, _found(db, call), repo, _note(body))
        return JSONResponse(_json(db, call, after) | {"position": 0})


def _change_item(call: Call) -> Response:
    call.require_write()
    body = call.json()
    position = body.get("position")
    if position is not None and (not isinstance(position, int) or isinstance(position, bool)):
        raise bad_request("'position' must be a number")
    with writing(call.hub.root) as db:
        collections.change_item(db, _found(db, call), call.param("item"), _note(body), position)
    return JSONResponse({"success": True})


def _remove_item(call: Call) -> Response:
    call.require_write()
    with writing(call.hub.root) as db:
        collections.remove_item(db, _found(db, call), call.param("item"))
    return JSONResponse({"success": True})


_ONE = "/api/collections/{namespace}/{slug}"

ROUTES = [
    Route("/api/collections", endpoint(_list), methods=["GET"]),
    Route("/api/collections", body_endpoint(_create, Call.require_write), methods=["POST"]),
    Route(_ONE, endpoint(_get), methods=["GET"]),
    Route(_ONE, body_endpoint(_change, Call.require_write), methods=["PATCH"]),
    Route(_ONE, endpoint(_delete), methods=["DELETE"]),
    Route(f"{_ONE}/items", body_endpoint(_add, Call.require_write), methods=["POST"]),
    Route(f"{_ONE}/items/{{item}}", body_endpoint(_change_item, Call.require_write), methods=["PATCH"]),
    Route(f"{_ONE}/items/{{item}}", endpoint(_remove_item), methods=["DELETE"]),
]
