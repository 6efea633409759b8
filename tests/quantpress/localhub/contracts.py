"""Runs a client contract: checks of one major version of the unmodified client, against a new Hub."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from quantpress.localhub.server import running_hub
from quantpress.toolchain.cache import cache_folder
from quantpress.toolchain.environment import Contents, build_environment

#: The client that is installed here, and its other major version, which ``other_client.txt`` pins.
CLIENTS = ["installed", "huggingface_hub==2.4.0"]
_OTHER_CLIENT = Contents(Path(__file__).with_name("other_client.txt"))
_CHECKOUT = Path(__file__).parents[3]


def _interpreter(client: str) -> Path:
    """Returns a Python whose environment holds the client. The environment is made once per user, then reused."""
    if client == "installed":
        return Path(sys.executable)
    return build_environment("hub-client", _OTHER_CLIENT, cache_folder()) / "bin" / "python"


def passed_checks(contract: str, client: str, folder: Path) -> list[str]:
    """Runs a contract of this folder and returns the names of its checks. If one fails, raises AssertionError with the
    output."""
    work = folder / "work"
    work.mkdir()
    module = f"tests.quantpress.localhub.{contract}"
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(work),
        "HF_HOME": str(work / "default-home"),
        "HF_HUB_DISABLE_XET": "1",  # the embedded Hub does not speak Xet
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    with running_hub(folder / "hub") as hub:
        tokens = hub.create_token("press", "write"), hub.create_token("reader", "read")
        run = subprocess.run(
            [_interpreter(client), "-W", "ignore", "-m", module, hub.endpoint, *tokens, work],
            cwd=_CHECKOUT,
            env=environment,
            check=False,
            capture_output=True,
            text=True,
        )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout.split()
