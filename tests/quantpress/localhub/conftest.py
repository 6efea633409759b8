"""A running Hub with a repo in it, and a plain HTTP client that sends addresses unchanged."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import urlsplit

import pytest

from quantpress.localhub.server import RunningHub, running_hub


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


Send = Callable[..., Answer]


@dataclass(frozen=True)
class LiveHub:
    """A Hub with an empty repo ``press/m``, and the tokens of its users."""

    hub: RunningHub
    write_token: str
    read_token: str

    def send(
        self,
        method: str,
        address: str,
        *,
        token: str | None = None,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        **fields: Any,
    ) -> Answer:
        """Sends one request. ``fields`` become a JSON body."""
        parts = urlsplit(self.hub.endpoint)
        assert parts.hostname is not None
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        if fields:
            body = json.dumps(fields).encode()
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
        try:
            connection.request(method, address.removeprefix(self.hub.endpoint), body=body, headers=sent)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def commit(
        self, *lines: dict[str, Any], repo: str = "press/m", revision: str = "main", repo_type: str = "model"
    ) -> Answer:
        """Sends a commit of these operations. Each is ``{"key": …, "value": …}``."""
        items = [{"key": "header", "value": {"summary": "Change", "description": ""}}, *lines]
        body = b"".join(json.dumps(item).encode() + b"\n" for item in items)
        return self.send("POST", f"/api/{repo_type}s/{repo}/commit/{revision}", token=self.write_token, body=body)

    def add_text(self, path: str, text: str, repo: str = "press/m") -> Answer:
        return self.commit({"key": "file", "value": {"path": path, "content": text, "encoding": "utf-8"}}, repo=repo)

    def create(self, name: str, repo_type: str = "model") -> None:
        answer = self.send(
            "POST", "/api/repos/create", token=self.write_token, organization="press", name=name, type=repo_type
        )
        assert answer.status == 200, answer.body


def start(hub: RunningHub) -> LiveHub:
    return LiveHub(hub, hub.create_token("press", "write"), hub.create_token("reader", "read"))


@pytest.fixture(scope="session")
def live_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveHub]:
    """A Hub that all tests share. Each test makes repos of its own."""
    with running_hub(tmp_path_factory.mktemp("hub") / "root") as hub:
        live = start(hub)
        live.create("m")
        yield live


@pytest.fixture(scope="session")
def live() -> Callable[[RunningHub], LiveHub]:
    """A function that makes the client of a Hub which the test runs itself."""
    return start
