"""The addresses of repos: a dataset's differ from a model's by their first segment, ``datasets``.

A model is at ``/api/models/{namespace}/{name}`` and ``/{namespace}/{name}``, a dataset at ``/api/datasets/…`` and
``/datasets/…``. No namespace is called ``datasets`` (names.RESERVED_NAMESPACES), so an address stands for one repo.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from quantpress.localhub.repos import REPO_TYPES, RepoType

Handler = Callable[[Request], Awaitable[Response]]


def repo_type_of(path: str) -> RepoType:
    """The type of the repos at an address, as it was sent."""
    first = path.removeprefix("/api/").removeprefix("/").partition("/")[0]
    return "dataset" if first == "datasets" else "model"


def repo_address(repo_type: RepoType, repo_id: str) -> str:
    """Where a repo is, under the Hub's endpoint."""
    return f"/datasets/{repo_id}" if repo_type == "dataset" else f"/{repo_id}"


def api_routes(rest: str, handler: Handler, methods: list[str]) -> list[Route]:
    """What comes at ``rest`` after a repo's address in the API, for repos of all types."""
    return [
        Route(f"/api/{repo_type}s/{{namespace}}/{{name}}{rest}", handler, methods=methods) for repo_type in REPO_TYPES
    ]


def repo_routes(rest: str, handler: Handler, methods: list[str]) -> list[Route]:
    """What comes at ``rest`` after a repo's own address, for repos of all types.

    Datasets come first: the pattern for models also takes addresses of datasets that are called like ``rest``, such as
    ``/datasets/press/resolve/resolve/main/x``.
    """
    return [Route(f"{prefix}/{{namespace}}/{{name}}{rest}", handler, methods=methods) for prefix in ("/datasets", "")]
