"""``make demo``: shows the main job of quantpress without huggingface.co. One line of a catalog becomes three published
formats.

The demo finds or builds the llama.cpp tools, and makes its source model. Then the demo starts quantpress's own small
Hub (the embedded Hub) and uploads that model. Finally the demo runs ``quantpress run`` on ``catalog.demo.yaml`` in a
separate process, as an operator would.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from quantpress.catalog.reader import load_catalog
from quantpress.cli.demo_model import demo_model
from quantpress.hub.client import hub_client
from quantpress.localhub.auth import revoke_tokens
from quantpress.localhub.server import RunningHub, running_hub
from quantpress.record.names import model_name
from quantpress.terminal import say
from quantpress.toolchain.llama_cpp import install
from quantpress.toolchain.progress import shown

CATALOG = Path("catalog.demo.yaml")
HOME = Path(".quantpress")
#: The default port of ``quantpress hub``. The demo uses this port if it is free, so that addresses on the cards work
#: afterwards. Otherwise the demo uses any free port.
PORT = 7860


def main() -> int:
    """Runs the demo. Returns the exit code of ``quantpress run``."""
    started = time.monotonic()
    with shown() as progress:
        install(progress)
        model = demo_model(progress)
    source = load_catalog(CATALOG).models[0].repo
    with running_hub(HOME / "hub", PORT if _is_free(PORT) else 0) as hub:
        revoke_tokens(hub.root, "press")
        token = hub.create_token("press", "write")
        upload_source(hub, token, model, source)
        say(f"Embedded Hub at {hub.endpoint} with {source}; pressing {CATALOG}")
        command = [sys.executable, "-m", "quantpress", "run", "--catalog", str(CATALOG)]
        code = subprocess.run(command, env=press_environment(hub, token, HOME), check=False).returncode
    if code == 0:
        say(f"\n{model_name(source)} is published. It took {(time.monotonic() - started) / 60:.1f} minutes.")
        say(f"Look at it: .venv/bin/quantpress hub --root {HOME / 'hub'} --port {PORT}")
        say(f"then open http://127.0.0.1:{PORT}")
    return code


def upload_source(hub: RunningHub, token: str, model: Path, repo_id: str) -> None:
    """Uploads the source model to the embedded Hub. The client skips files that are already there."""
    api = hub_client(hub.endpoint)
    api.create_repo(repo_id, exist_ok=True, token=token)
    api.upload_folder(repo_id=repo_id, folder_path=model, commit_message="The demo's source model", token=token)


def press_environment(hub: RunningHub, token: str, home: Path) -> dict[str, str]:
    """Returns the environment of a process that reads from ``hub``, publishes there and keeps its files in ``home``."""
    return os.environ | {
        "QUANTPRESS_SOURCE_ENDPOINT": hub.endpoint,
        "QUANTPRESS_TARGET_ENDPOINT": hub.endpoint,
        "QUANTPRESS_HOME": str(home),
        "HF_TOKEN": token,
        "HF_HOME": str((home / "huggingface").resolve()),
        "PREFECT_HOME": str((home / "prefect").resolve()),
    }


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


if __name__ == "__main__":
    sys.exit(main())
