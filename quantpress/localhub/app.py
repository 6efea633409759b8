"""The embedded Hub as an ASGI application."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from quantpress.localhub import views
from quantpress.localhub.api import account, collections, commit, files, lfs, ollama, refs, repos, trees
from quantpress.localhub.collections import prepare
from quantpress.localhub.context import Hub, error_response
from quantpress.localhub.database import initialise
from quantpress.localhub.deadlines import USUAL, BodyDeadline, Deadlines
from quantpress.localhub.errors import HubError, is_disk_full, no_room
from quantpress.localhub.hosts import KnownHost


class RawPath:
    """Routes requests by the address exactly as the client sent it.

    A branch ``a/b`` arrives as ``a%2Fb``, and so stays one segment of the address.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["path"] = scope["raw_path"].decode("ascii", "replace").partition("?")[0]
        await self._app(scope, receive, send)


def _not_found(request: Request, _: Exception) -> Response:
    return error_response(request, HubError(404, "There is nothing at this address"))


def _disk_full(request: Request, error: Exception) -> Response:
    if is_disk_full(error):
        return error_response(request, no_room("free some, then try again"))
    raise error


def _client_left(_: Request, __: Exception) -> Response:
    """Answers a request whose client went away.

    Nobody reads the answer, but without an answer the server would log an error.
    """
    return Response(status_code=400)


def create_app(root: Path, names: Collection[str] = (), deadlines: Deadlines = USUAL) -> Starlette:
    """Returns the application of the Hub in the folder ``root``. Makes the folder if it does not exist.

    The Hub answers to the host names ``names``, to ``localhost`` and to any IP address.

    Raises HubError if another version of this program wrote the Hub's database.
    """
    initialise(root)
    prepare(root)
    app = Starlette(
        routes=[
            *account.ROUTES,
            *repos.ROUTES,
            *refs.ROUTES,
            *trees.ROUTES,
            *commit.ROUTES,
            *lfs.ROUTES,
            *files.ROUTES,
            *ollama.ROUTES,
            *collections.ROUTES,
            *views.ROUTES,
        ],
        middleware=[
            Middleware(KnownHost, names=names),
            Middleware(RawPath),
            Middleware(BodyDeadline, deadlines=deadlines),
        ],
        exception_handlers={
            HubError: error_response,
            OSError: _disk_full,
            ClientDisconnect: _client_left,
            404: _not_found,
        },
    )
    # Each address means one thing, so the router must not redirect an address to another one.
    app.router.redirect_slashes = False
    app.state.hub = Hub(root)
    return app
