"""An operator with an embedded Hub."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from quantpress.localhub.server import running_hub
from tests.support.operating import Operator, PrefectServer


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory, prefect_api: PrefectServer) -> Iterator[Operator]:
    folder = tmp_path_factory.mktemp("operator")
    with running_hub(folder / "hub") as hub:
        yield Operator(folder, hub, hub.create_token("press", "write"), prefect_api)
