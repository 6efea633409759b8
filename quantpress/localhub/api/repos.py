"""The endpoints that create, list, describe, change, move and delete repos."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from quantpress.localhub import repos
from quantpress.localhub.addresses import api_routes, repo_address
from quantpress.localhub.commits import found_repo, regular_entry
from quantpress.localhub.context import Call, body_endpoint, endpoint, text_field
from quantpress.localhub.database import reading, writing
from quantpress.localhub.description import describe, describe_all, repo_json
from quantpress.localhub.errors import HubError, bad_request
from quantpress.localhub.repos import Gated, RepoType
from quantpress.localhub.uploadmode import git_attributes

_ALWAYS = ("_id", "id", "modelId")


def _repo_type(body: dict[str, Any]) -> RepoType:
    """Returns the repo type that a request names. If a request names no type, it means a model."""
    match body.get("type"):
        case None | "model":
            return "model"
        case "dataset":
            return "dataset"
    raise bad_request(f"This Hub keeps models and datasets only, not a {str(body['type'])[:40]}")


def _repo_id(body: dict[str, Any], user: str) -> str:
    return f"{body.get('organization') or user}/{text_field(body, 'name')}"


def _private(body: dict[str, Any], current: bool) -> bool:
    match body.get("visibility"):
        case "private":
            return True
        case "public":
            return False
        case None:
            return bool(body.get("private", current))
    raise bad_request("'visibility' must be 'public' or 'private'")


def _create(call: Call) -> Response:
    identity = call.require_write()
    body = call.json()
    repo_type, repo_id = _repo_type(body), _repo_id(body, identity.user)
    url = f"{call.endpoint}{repo_address(repo_type, repo_id)}"
    with writing(call.hub.root) as db:
        try:
            repo = found_repo(
                db,
                repo_type,
                repo_id,
                private=_private(body, False),
                author=identity.user,
                attributes=regular_entry(call.hub.store, ".gitattributes", git_attributes()),
            )
        except HubError as error:
            if error.status == 409:
                # If huggingface_hub is called with exist_ok=True, it reads the repo's address from this response.
                error.body = {"url": url}
            raise
    return JSONResponse({"url": url, "name": repo.repo_id, "id": f"{repo.id:024x}"})


def _delete(call: Call) -> Response:
    identity = call.require_write()
    body = call.json()
    repo_type, repo_id = _repo_type(body), _repo_id(body, identity.user)
    with writing(call.hub.root) as db:
        repos.delete_repo(db, repos.get_repo(db, repo_id, repo_type))
    return JSONResponse({})


def _move(call: Call) -> Response:
    call.require_write()
    body = call.json()
    repo_type, repo_id = _repo_type(body), text_field(body, "fromRepo")
    with writing(call.hub.root) as db:
        repos.move_repo(db, repos.get_repo(db, repo_id, repo_type), text_field(body, "toRepo"))
    return JSONResponse({})


def _gated(body: dict[str, Any], current: Gated | None) -> Gated | None:
    match body.get("gated", current):
        case "auto":
            return "auto"
        case "manual":
            return "manual"
        case None | False:
            return None
    raise bad_request("'gated' must be 'auto', 'manual' or false")


def _settings(call: Call) -> Response:
    body = call.json()
    with writing(call.hub.root) as db:
        repo = call.repo_to_write(db)
        private, gated = _private(body, repo.private), _gated(body, repo.gated)
        repos.update_repo(db, repo, private=private, gated=gated)
    return JSONResponse({"private": private, "gated": gated or False})


def _expanded(info: dict[str, Any], expand: list[str]) -> dict[str, Any]:
    if not expand:
        return info
    return {key: value for key, value in info.items() if key in _ALWAYS or key in expand}


def _expand(call: Call) -> list[str]:
    return [*call.query("expand"), *call.query("expand[]")]


def _info(call: Call) -> Response:
    with reading(call.hub.root) as db:
        repo = call.repo(db)
        description = describe(db, call.hub.store, repo, call.commit(db, repo))
    info = repo_json(description, with_sizes=call.flag("blobs"))
    return JSONResponse(_expanded(info, _expand(call)))


def _matches(call: Call, info: dict[str, Any]) -> bool:
    wanted = {tag for value in call.query("filter") for tag in value.split(",") if tag}
    authors = call.query("author")
    tasks = call.query("pipeline_tag")
    gated = call.query("gated")
    return (
        (not authors or info["author"] in authors)
        and all(text.lower() in info["id"].lower() for text in call.query("search"))
        and wanted <= set(info["tags"])
        and (not tasks or info.get("pipeline_tag") in tasks)
        and (not gated or (gated[0].lower() == "true") == bool(info["gated"]))
    )


def _list(call: Call) -> Response:
    with reading(call.hub.root) as db:
        identity = call.identity(db)
        visible = [
            repo_json(description, with_sizes=False)
            for description in describe_all(db, call.hub.store, call.repo_type, private=identity is not None)
        ]
    found = [info for info in visible if _matches(call, info)]
    key = next(iter(call.query("sort")), "lastModified")
    if key not in ("lastModified", "createdAt"):
        key = "lastModified"  # this Hub does not count downloads, likes or trends
    found.sort(key=lambda info: str(info[key]), reverse=call.query("direction") != ["1"])
    found = found[: call.limit()]
    expand = _expand(call)
    if not expand:
        for info in found:
            if not call.flag("full"):
                del info["siblings"]
            if not (call.flag("full") or call.flag("cardData")):
                del info["cardData"]
    return JSONResponse([_expanded(info, expand) for info in found])


ROUTES = [
    Route("/api/repos/create", body_endpoint(_create, Call.require_write), methods=["POST"]),
    Route("/api/repos/delete", body_endpoint(_delete, Call.require_write), methods=["DELETE"]),
    Route("/api/repos/move", body_endpoint(_move, Call.require_write), methods=["POST"]),
    Route("/api/models", endpoint(_list), methods=["GET"]),
    Route("/api/datasets", endpoint(_list), methods=["GET"]),
    *api_routes("", endpoint(_info), ["GET"]),
    *api_routes("/revision/{revision}", endpoint(_info), ["GET"]),
    *api_routes("/settings", body_endpoint(_settings, Call.require_write), ["PUT"]),
]
