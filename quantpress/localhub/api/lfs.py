"""The endpoints of Git LFS: the batch, uploads in one piece or in parts, and verification.

The batch protocol is described in https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md. The transfer
``multipart`` is the Hub's own (``_upload_multi_part`` in huggingface_hub/lfs.py). The ``header`` of a multipart upload
action holds ``chunk_size`` and one address for each part. The client sends the request that completes the upload to the
action's ``href``.
"""

from __future__ import annotations

import math
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from quantpress.localhub import auth
from quantpress.localhub.addresses import repo_address, repo_routes
from quantpress.localhub.context import LIST_BODY, Call, body_endpoint, hub_of, parse_object, read_body, text_field
from quantpress.localhub.database import reading
from quantpress.localhub.errors import HubError, bad_request
from quantpress.localhub.names import check_sha256

_PART_BYTES = 8 * 1024 * 1024
_MAX_PARTS = 1000
_MAX_OBJECTS = 1000
_MEDIA_TYPE = "application/vnd.git-lfs+json"


def _wanted(value: object) -> tuple[str, int]:
    if not isinstance(value, dict):
        raise bad_request("'objects' must hold objects")
    size = value.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise bad_request("'size' must be a number of bytes")
    return check_sha256(text_field(value, "oid")), size


def _signed(call: Call, path: str, fields: dict[str, str | int]) -> str:
    return call.endpoint + call.hub.signer.sign(path, fields)


async def _check_address(request: Request) -> dict[str, str]:
    """Returns the fields of a signed address.

    Raises HubError (403) if this Hub did not make the address, or if the address or the token behind it has ended.
    """
    hub, fields = hub_of(request), dict(request.query_params)
    hub.signer.check(request.scope["path"], fields)

    def check_token() -> None:
        with reading(hub.root) as db:
            auth.require_token(db, fields.get("by", ""))

    await run_in_threadpool(check_token)
    return fields


def _upload_action(call: Call, oid: str, whole: dict[str, str | int], multipart: bool) -> dict[str, Any]:
    size = int(whole["size"])
    if not multipart or size <= _PART_BYTES:
        return {"href": _signed(call, f"/lfs/{oid}", {**whole, "offset": 0, "length": size})}
    part = max(_PART_BYTES, math.ceil(size / _MAX_PARTS))
    header = {"chunk_size": str(part)}
    for number in range(math.ceil(size / part)):
        offset = number * part
        header[str(number + 1)] = _signed(
            call, f"/lfs/{oid}/part", {**whole, "offset": offset, "length": min(part, size - offset)}
        )
    return {"href": _signed(call, f"/lfs/{oid}/complete", whole), "header": header}


def _batch(call: Call) -> Response:
    body = call.json()
    if body.get("operation") != "upload":
        raise bad_request("Only uploads go through LFS here; files are downloaded from /resolve/")
    objects = body.get("objects")
    if not isinstance(objects, list) or len(objects) > _MAX_OBJECTS:
        raise bad_request(f"'objects' must be a list of at most {_MAX_OBJECTS}")
    token_id = call.require_write().token_id
    with reading(call.hub.root) as db:
        repo = call.repo_to_write(db)
    transfers = body.get("transfers")
    multipart = isinstance(transfers, list) and "multipart" in transfers
    answers: list[dict[str, Any]] = [{"oid": oid, "size": size} for oid, size in map(_wanted, objects)]
    absent = [answer for answer in answers if not call.hub.store.keep(answer["oid"], answer["size"])]
    promised = call.hub.uploads.promise([(answer["oid"], answer["size"]) for answer in absent])
    verify = f"{call.endpoint}{repo_address(repo.repo_type, repo.repo_id)}.git/info/lfs/objects/verify"
    for answer, upload in zip(absent, promised, strict=True):
        if isinstance(upload, HubError):
            answer["error"] = {"code": upload.status, "message": upload.message}
        else:
            answer["actions"] = {
                "upload": _upload_action(
                    call, answer["oid"], {"upload": upload, "size": answer["size"], "by": token_id}, multipart
                ),
                "verify": {"href": verify, "header": {}},
            }
    return JSONResponse({"transfer": "multipart" if multipart else "basic", "objects": answers}, media_type=_MEDIA_TYPE)


def _verify(call: Call) -> Response:
    with reading(call.hub.root) as db:
        call.repo_to_write(db)
    oid, size = _wanted(call.json())
    if call.hub.store.size(oid) != size:
        raise HubError(404, f"The object {oid} of {size} bytes is not here: upload it again")
    return JSONResponse({}, media_type=_MEDIA_TYPE)


async def _receive(request: Request) -> tuple[str, dict[str, str], str]:
    """Checks the signed address of a request and stores the bytes of its body.

    Returns the object's id, the address's fields and the checksum (CRC-32) of the bytes.
    """
    oid, fields = request.path_params["oid"], await _check_address(request)
    checksum = await hub_of(request).uploads.receive_part(
        fields["upload"], oid, int(fields["size"]), request.stream(), int(fields["offset"]), int(fields["length"])
    )
    return oid, fields, checksum


async def _put_part(request: Request) -> Response:
    _, _, checksum = await _receive(request)
    return Response(status_code=200, headers={"ETag": f'"{checksum}"'})


async def _put_whole(request: Request) -> Response:
    oid, fields, checksum = await _receive(request)
    await run_in_threadpool(hub_of(request).uploads.finish, fields["upload"], oid, int(fields["size"]))
    return Response(status_code=200, headers={"ETag": f'"{checksum}"'})


async def _complete(request: Request) -> Response:
    oid, fields = request.path_params["oid"], await _check_address(request)
    if parse_object(await read_body(request, LIST_BODY)).get("oid") != oid:
        raise bad_request("The completion names another object")
    await run_in_threadpool(hub_of(request).uploads.finish, fields["upload"], oid, int(fields["size"]))
    return JSONResponse({}, media_type=_MEDIA_TYPE)


ROUTES = [
    *repo_routes(".git/info/lfs/objects/batch", body_endpoint(_batch, Call.require_write, LIST_BODY), ["POST"]),
    *repo_routes(".git/info/lfs/objects/verify", body_endpoint(_verify, Call.require_write), ["POST"]),
    Route("/lfs/{oid}", _put_whole, methods=["PUT"]),
    Route("/lfs/{oid}/part", _put_part, methods=["PUT"]),
    Route("/lfs/{oid}/complete", _complete, methods=["POST"]),
]
