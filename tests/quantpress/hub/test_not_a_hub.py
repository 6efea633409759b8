"""A proxy or a login page that answers every request with 200 and HTML: it is called what it is, and nothing else."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from quantpress.catalog.reader import parse_catalog
from quantpress.errors import Unreachable
from quantpress.hub.client import hub_client
from quantpress.hub.hubs import Hubs
from quantpress.plan.make import plan_catalog
from quantpress.plan.orphans import find_orphans
from quantpress.settings import Settings
from tests.support.planned import Press, running_press

_PAGE = "<!doctype html><title>Sign in ä</title>"


class LoginPage(BaseHTTPRequestHandler):
    charset = "utf-8"

    def do_GET(self) -> None:
        page = _PAGE.encode(self.charset, errors="replace")
        self.send_response(200)
        self.send_header("Content-Type", f"text/html; charset={self.charset}")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page)

    do_HEAD = do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class OldLoginPage(LoginPage):
    charset = "latin-1"


@pytest.fixture(scope="module", params=[LoginPage, OldLoginPage])
def page(request: pytest.FixtureRequest) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), request.param) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def press(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Press]:
    with running_press(tmp_path_factory.mktemp("not-a-hub")) as press:
        press.source("up/Model")
        yield press


CATALOG = parse_catalog(json.dumps({"models": ["up/Model"], "defaults": {"formats": ["gguf"]}}), "c")
NO_HUB = "the answer is not JSON, so this is not a Hub (a proxy or a login page?): check the address and the network"


def test_as_the_source(press: Press, page: str, tmp_path: Path) -> None:
    hubs = Hubs(hub_client(page, patience=1), press.api)
    with pytest.raises(Unreachable) as said:
        plan_catalog(CATALOG, Settings(namespace="press", home=tmp_path), hubs)
    assert str(said.value) == f"looking up up/Model on {page}: {NO_HUB}"


def test_as_the_target(press: Press, page: str, tmp_path: Path) -> None:
    hubs, settings = Hubs(press.api, hub_client(page, patience=1)), Settings(namespace="press", home=tmp_path)
    with pytest.raises(Unreachable) as said:
        plan_catalog(CATALOG, settings, hubs)
    assert str(said.value) == f"reading press/Model-GGUF on {page}: {NO_HUB}"
    with pytest.raises(Unreachable, match="not a Hub"):
        find_orphans(CATALOG, settings, hubs.target)
