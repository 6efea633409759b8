"""The addresses of repos. The segment ``datasets`` distinguishes a dataset's address from a model's.

A model is at ``/api/models/{namespace}/{name}`` and ``/{namespace}/{name}``. A dataset is at ``/api/datasets/…`` and
``/datasets/…``. No namespace is called ``datasets`` (names.RESERVED_NAMESPACES), so each address belongs to one repo
only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from quantpress.localhub.repos import REPO_TYPES, RepoType

Handler = Callable[[Request], Awaitable[Response]]


def repo_type_of(path: str) -> RepoType:
    """Returns the repo type of an address. The address must be exactly as the client sent it."""
    first = path.removeprefix("/api/").removeprefix("/").partition("/")[0]
    return "dataset" if first == "datasets" else "model"


def repo_address(repo_type: RepoType, repo_id: str) -> str:
    """Returns a repo's address, relative to the Hub's endpoint."""
    return f"/datasets/{repo_id}" if repo_type == "dataset" else f"/{repo_id}"


def api_routes(rest: str, handler: Handler, methods: list[str]) -> list[Route]:
    """Returns one route for each repo type. Its pattern is a repo's API address followed by ``rest``."""
    return [
        Route(f"/api/{repo_type}s/{{namespace}}/{{name}}{rest}", handler, methods=methods) for repo_type in REPO_TYPES
    ]


def repo_routes(rest: str, handler: Handler, methods: list[str]) -> list[Route]:
    """Returns one route for each repo type. Its pattern is a repo's own address followed by ``rest``.

    The route for datasets comes first, because the pattern for models can match a dataset's address too. For example,
    ``/datasets/press/resolve/resolve/main/x`` is a file of the dataset ``press/resolve``. The pattern for models would
    match this address as a file of a model ``datasets/press``.
    """
    return [Route(f"{prefix}/{{namespace}}/{{name}}{rest}", handler, methods=methods) for prefix in ("/datasets", "")]
