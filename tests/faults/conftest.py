"""An embedded Hub behind a bad line."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from quantpress.localhub.server import RunningHub, running_hub
from tests.support.line import Line, bad_line


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with running_hub(tmp_path_factory.mktemp("hub") / "hub") as hub:
        yield hub


@pytest.fixture
def line(hub: RunningHub) -> Iterator[Line]:
    with bad_line(hub.endpoint) as line:
        yield line
