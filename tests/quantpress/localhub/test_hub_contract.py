"""The unmodified client in both major versions against a running Hub."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from quantpress.localhub.server import running_hub
from quantpress.toolchain.cache import cache_folder
from quantpress.toolchain.environment import build_environment

NEWER_CLIENT = "huggingface_hub==2.4.0"

CHECKS = [
    "whoami",
    "create",
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
    "lists",
    "tokens",
    "private",
    "gated",
    "move_and_delete",
    "upload_folder",
    "card_validation",
]


def environment_with(requirement: str) -> Path:
    """The interpreter of an environment that holds one requirement; made once per user, then reused."""
    return build_environment("hub-client", [requirement], Path(os.devnull), cache_folder()) / "bin" / "python"


@pytest.mark.slow
@pytest.mark.parametrize("client", ["installed", NEWER_CLIENT])
def test_client_contract(client: str, tmp_path: Path) -> None:
    interpreter = Path(sys.executable) if client == "installed" else environment_with(client)
    work = tmp_path / "work"
    work.mkdir()
    with running_hub(tmp_path / "hub") as hub:
        write, read = hub.create_token("press", "write"), hub.create_token("reader", "read")
        contract = Path(__file__).with_name("contract.py")
        run = subprocess.run(
            [interpreter, "-W", "ignore", contract, hub.endpoint, write, read, work],
            env={"PATH": "/usr/bin:/bin", "HF_HOME": str(work / "default-home"), "HOME": str(work)},
            check=False,
            capture_output=True,
            text=True,
        )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.split() == CHECKS
