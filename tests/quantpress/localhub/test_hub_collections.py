"""Collections, by the unmodified client in both major versions, and on a Hub that an earlier version made."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from quantpress.localhub.server import running_hub
from quantpress.toolchain.cache import cache_folder
from quantpress.toolchain.environment import build_environment

NEWER_CLIENT = "huggingface_hub==2.4.0"

CHECKS = ["create", "items", "list", "order", "repos_that_move_or_go", "metadata", "private", "delete"]


@pytest.mark.slow
@pytest.mark.parametrize("client", ["installed", NEWER_CLIENT])
def test_client_contract(client: str, tmp_path: Path) -> None:
    interpreter = Path(sys.executable)
    if client != "installed":
        environment = build_environment("hub-client", [client], Path(os.devnull), cache_folder())
        interpreter = environment / "bin" / "python"
    with running_hub(tmp_path / "hub") as hub:
        tokens = hub.create_token("press", "write"), hub.create_token("reader", "read")
        run = subprocess.run(
            [interpreter, "-W", "ignore", Path(__file__).with_name("collections_contract.py"), hub.endpoint, *tokens],
            env={"PATH": "/usr/bin:/bin", "HF_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)},
            check=False,
            capture_output=True,
            text=True,
        )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.split() == CHECKS


def test_a_hub_without_the_tables_gets_them(tmp_path: Path) -> None:
    with running_hub(tmp_path / "hub") as hub:
        token = hub.create_token("press", "write")
    with closing(sqlite3.connect(tmp_path / "hub" / "hub.sqlite3")) as db:
        db.executescript("DROP TABLE collection_items; DROP TABLE collections")
    with running_hub(tmp_path / "hub") as hub:
        api = HfApi(endpoint=hub.endpoint, token=token)
        assert list(api.list_collections()) == []
        assert api.create_collection("Title", namespace="press").title == "Title"
