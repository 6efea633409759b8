"""The pages for people: the list of models, and each model's card, files, branches and commits."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from quantpress.localhub import history
from quantpress.localhub.addresses import Handler
from quantpress.localhub.context import Call, endpoint
from quantpress.localhub.database import reading
from quantpress.localhub.description import CARD_PATH, Description, describe, describe_all
from quantpress.localhub.errors import HubError
from quantpress.localhub.history import DEFAULT_BRANCH
from quantpress.localhub.modelcard import texts
from quantpress.localhub.rendering import CardNotShown

_HEADERS = {
    # These pages have no scripts. An image in a card may come from any address.
    "Content-Security-Policy": "default-src 'none'; img-src * data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def _bytes(size: int) -> str:
    """Formats a size in bytes for people, in decimal units as on the public Hub."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def _day(timestamp: str) -> str:
    return datetime.fromisoformat(timestamp).strftime("%Y-%m-%d %H:%M")


def _segment(text: str) -> str:
    return quote(text, safe="")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("pages")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(bytes=_bytes, day=_day, segment=_segment)
    return environment


def _page(template: str, status: int = 200, **values: Any) -> Response:
    return HTMLResponse(_environment().get_template(template).render(**values), status, _HEADERS)


def _revision(call: Call) -> str:
    return call.param("revision") if "revision" in call.request.path_params else DEFAULT_BRANCH


def _describe(call: Call, db: sqlite3.Connection) -> Description:
    repo = call.repo(db)
    return describe(db, call.hub.store, repo, call.commit(db, repo))


def _index(call: Call) -> Response:
    words = " ".join(call.query("search")).lower().split()
    with reading(call.hub.root) as db:
        known = call.identity(db) is not None
        descriptions = list(describe_all(db, call.hub.store, "model", private=known))
    shown = [d for d in descriptions if all(word in d.repo.repo_id.lower() for word in words)]
    shown.sort(key=lambda d: d.commit.created_at, reverse=True)
    return _page("index.html", models=shown, search=" ".join(words), texts=texts)


def _card(call: Call, description: Description, files: str) -> tuple[str, str]:
    """Returns the repo's card as HTML, and a sentence for the reader if there is no HTML."""
    entry = description.files.get(CARD_PATH)
    if entry is None:
        return "", "This repo has no card."
    try:
        return call.hub.cards.html(call.hub.store.path(entry.sha256), files), ""
    except CardNotShown as error:
        return "", str(error)


def _model(call: Call) -> Response:
    revision = _revision(call)
    with reading(call.hub.root) as db:
        description = _describe(call, db)
        refs = history.list_refs(db, description.repo)
        commits = history.log(db, description.repo, description.commit.oid)
    card, no_card = _card(call, description, f"/{description.repo.repo_id}/resolve/{_segment(revision)}/")
    return _page(
        "model.html",
        model=description,
        revision=revision,
        refs=refs,
        commits=commits,
        card=card,
        no_card=no_card,
        texts=texts,
        endpoint=call.endpoint,
    )


@dataclass(frozen=True)
class _FileRow:
    """A file or folder in a listing.

    ``commit`` is the newest commit that changed the file or folder. ``size`` is in bytes, and None for a folder.
    """

    name: str
    path: str
    size: int | None
    lfs: bool
    commit: history.Commit


def _rows(db: sqlite3.Connection, description: Description, folder: str) -> list[_FileRow]:
    inside = f"{folder}/" if folder else ""
    names = dict.fromkeys(
        path[len(inside) :].partition("/")[0] for path in description.files if path.startswith(inside)
    )
    changed = history.last_commits(db, description.repo, description.commit, {inside + name for name in names})
    rows = []
    for name in names:
        path = inside + name
        entry = description.files.get(path)
        rows.append(_FileRow(name, path, entry.size if entry else None, bool(entry and entry.lfs), changed[path]))
    return sorted(rows, key=lambda row: (row.size is not None, row.name))


def _tree(call: Call) -> Response:
    folder = call.param("path").strip("/") if "path" in call.request.path_params else ""
    with reading(call.hub.root) as db:
        description = _describe(call, db)
        refs = history.list_refs(db, description.repo)
        rows = _rows(db, description, folder)
    if not rows:
        return _missing("There is no such folder in this repo.")
    return _page("tree.html", model=description, revision=_revision(call), refs=refs, rows=rows, folder=folder)


def _commits(call: Call) -> Response:
    with reading(call.hub.root) as db:
        description = _describe(call, db)
        refs = history.list_refs(db, description.repo)
        commits = history.log(db, description.repo, description.commit.oid)
    return _page("commits.html", model=description, revision=_revision(call), refs=refs, commits=commits)


def _missing(message: str, status: int = 404) -> Response:
    return _page("missing.html", status, message=message)


def _for_people(handler: Callable[[Call], Response]) -> Handler:
    """Makes a route's handler from ``handler``. The new handler shows errors as HTML pages."""

    def handle(call: Call) -> Response:
        try:
            return handler(call)
        except HubError as error:
            return _missing(error.message, error.status)

    return endpoint(handle)


ROUTES = [
    Route("/", _for_people(_index), methods=["GET"]),
    Route("/{namespace}/{name}", _for_people(_model), methods=["GET"]),
    Route("/{namespace}/{name}/card/{revision}", _for_people(_model), methods=["GET"]),
    Route("/{namespace}/{name}/tree/{revision}", _for_people(_tree), methods=["GET"]),
    Route("/{namespace}/{name}/tree/{revision}/{path:path}", _for_people(_tree), methods=["GET"]),
    Route("/{namespace}/{name}/commits/{revision}", _for_people(_commits), methods=["GET"]),
    Route("/{namespace}/{name}/commit/{revision}", _for_people(_tree), methods=["GET"]),
]
