"""The small endpoints that change no repo.

They answer who the client is, what the client may do, and whether a card is valid.
"""

from __future__ import annotations

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from quantpress.localhub import auth
from quantpress.localhub.addresses import api_routes
from quantpress.localhub.context import LARGE_BODY, Call, body_endpoint, endpoint, text_field
from quantpress.localhub.database import reading
from quantpress.localhub.frontmatter import CardInvalid
from quantpress.localhub.modelcard import faults, parse_card


def _whoami(call: Call) -> Response:
    with reading(call.hub.root) as db:
        identity = auth.require_identity(call.identity(db))
    return JSONResponse(
        {
            "type": "user",
            "id": identity.user,
            "name": identity.user,
            "fullname": identity.user,
            "email": None,
            "isPro": False,
            "orgs": [],
            "auth": {
                "type": "access_token",
                "accessToken": {"displayName": identity.user, "role": identity.role},
            },
        }
    )


def _auth_check(call: Call) -> Response:
    with reading(call.hub.root) as db:
        repo = call.repo(db)
        auth.require_files(db, repo, call.identity(db))
    return JSONResponse({})


def _auth_check_write(call: Call) -> Response:
    with reading(call.hub.root) as db:
        call.repo_to_write(db)
    return JSONResponse({})


def _validate_yaml(call: Call) -> Response:
    errors, warnings = [], []
    try:
        card = parse_card(text_field(call.json(), "content"))
    except CardInvalid as error:
        errors.append(str(error))
    else:
        errors += faults(card.data or {})
        if not card.data:
            warnings.append("empty or missing yaml metadata in repo card")
    return JSONResponse(
        {
            "errors": [{"message": message} for message in errors],
            "warnings": [{"message": message} for message in warnings],
        },
        400 if errors else 200,
    )


# Reading YAML costs time, so it takes a token. huggingface_hub sends the token here.
_VALIDATE_YAML = body_endpoint(_validate_yaml, Call.require_known, LARGE_BODY)

ROUTES = [
    Route("/api/whoami-v2", endpoint(_whoami), methods=["GET"]),
    Route("/api/validate-yaml", _VALIDATE_YAML, methods=["POST"]),
    *api_routes("/auth-check", endpoint(_auth_check), ["GET"]),
    *api_routes("/auth-check/write", endpoint(_auth_check_write), ["GET"]),
]
