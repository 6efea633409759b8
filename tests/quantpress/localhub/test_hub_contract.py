"""Models, with both major versions of the unmodified client."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.quantpress.localhub.contracts import CLIENTS, passed_checks

FILES = [
    "upload",
    "same_upload_makes_no_commit",
    "trees",
    "paths_info",
    "branches_and_tags",
    "stale_parent",
    "many_operations_in_one_commit",
    "download",
    "hf_download_command",
    "missing",
    "upload_folder",
    "card_validation",
]
REPOS = ["whoami", "create", "lists", "tokens", "private", "gated", "move_and_delete"]


@pytest.mark.slow
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(("contract", "checks"), [("files_contract", FILES), ("repos_contract", REPOS)])
def test_client_contract(contract: str, checks: list[str], client: str, tmp_path: Path) -> None:
    assert passed_checks(contract, client, tmp_path) == checks
