"""Collections: with both major versions of the unmodified client, and on a Hub that an earlier version made."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from quantpress.localhub.server import running_hub
from tests.quantpress.localhub.contracts import CLIENTS, passed_checks

CHECKS = ["create", "items", "list", "order", "repos_that_move_or_go", "metadata", "private", "delete"]


@pytest.mark.slow
@pytest.mark.parametrize("client", CLIENTS)
def test_client_contract(client: str, tmp_path: Path) -> None:
    assert passed_checks("collections_contract", client, tmp_path) == CHECKS


def test_a_hub_without_the_tables_gets_them(tmp_path: Path) -> None:
    with running_hub(tmp_path / "hub") as hub:
        token = hub.create_token("press", "write")
    with closing(sqlite3.connect(tmp_path / "hub" / "hub.sqlite3")) as db:
        db.executescript("DROP TABLE collection_items; DROP TABLE collections")
    with running_hub(tmp_path / "hub") as hub:
        api = HfApi(endpoint=hub.endpoint, token=token)
        assert list(api.list_collections()) == []
        assert api.create_collection("Title", namespace="press").title == "Title"
