"""The endpoints that list, make and delete branches and tags, and list commits."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from quantpress.localhub import history
from quantpress.localhub.addresses import api_routes
from quantpress.localhub.context import Call, body_endpoint, endpoint, text_field
from quantpress.localhub.database import reading, writing
from quantpress.localhub.history import DEFAULT_BRANCH, Ref


def _ref_json(ref: Ref) -> dict[str, str]:
    return {"name": ref.name, "ref": ref.full_name, "targetCommit": ref.target}


def _refs(call: Call) -> Response:
    with reading(call.hub.root) as db:
        refs = history.list_refs(db, call.repo(db))
    return JSONResponse(
        {
            "branches": [_ref_json(ref) for ref in refs if ref.kind == "branch"],
            "tags": [_ref_json(ref) for ref in refs if ref.kind == "tag"],
            "converts": [],
            "pullRequests": [],
        }
    )


def _create_branch(call: Call) -> Response:
    start = text_field(call.json(), "startingPoint", DEFAULT_BRANCH)
    with writing(call.hub.root) as db:
        repo = call.repo_to_write(db)
        commit = history.resolve(db, repo, start)
        history.create_ref(db, repo, "branch", call.param("branch"), commit.oid)
    return JSONResponse({})


def _delete_branch(call: Call) -> Response:
    with writing(call.hub.root) as db:
        history.delete_ref(db, call.repo_to_write(db), "branch", call.param("branch"))
    return JSONResponse({})


def _create_tag(call: Call) -> Response:
    body = call.json()
    with writing(call.hub.root) as db:
        repo = call.repo_to_write(db)
        commit = call.commit(db, repo)
        history.create_ref(
            db, repo, "tag", text_field(body, "tag"), commit.oid, message=text_field(body, "message", "")
        )
    return JSONResponse({})


def _delete_tag(call: Call) -> Response:
    with writing(call.hub.root) as db:
        history.delete_ref(db, call.repo_to_write(db), "tag", call.param("revision"))
    return JSONResponse({})


def _commits(call: Call) -> Response:
    with reading(call.hub.root) as db:
        repo = call.repo(db)
        commits = history.log(db, repo, call.commit(db, repo).oid)
    formatted = "formatted" in [*call.query("expand[]"), *call.query("expand")]

    def commit_json(commit: history.Commit) -> dict[str, Any]:
        texts: dict[str, Any] = {"title": commit.title, "message": commit.message}
        return {
            "id": commit.oid,
            "authors": [{"user": commit.author}],
            "date": commit.created_at,
            **texts,
            **({"formatted": texts} if formatted else {}),
        }

    return JSONResponse([commit_json(commit) for commit in commits])


ROUTES = [
    *api_routes("/refs", endpoint(_refs), ["GET"]),
    *api_routes("/branch/{branch}", body_endpoint(_create_branch, Call.require_write), ["POST"]),
    *api_routes("/branch/{branch}", endpoint(_delete_branch), ["DELETE"]),
    *api_routes("/tag/{revision}", body_endpoint(_create_tag, Call.require_write), ["POST"]),
    *api_routes("/tag/{revision}", endpoint(_delete_tag), ["DELETE"]),
    *api_routes("/commits/{revision}", endpoint(_commits), ["GET"]),
]
