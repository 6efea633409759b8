"""`quantpress deploy` against a real Prefect server on this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from quantpress.cli.deploy import run_prefect_deploy

EVERYTHING = [
    ("work pool", "cpu"),
    ("work pool", "gpu"),
    ("deployment", "nightly"),
    ("deployment", "nightly-gpu"),
    ("deployment", "cpu"),
    ("deployment", "gpu"),
    ("automation", "quantpress: heartbeat lost"),
    ("automation", "quantpress: stuck in pending"),
    ("automation", "quantpress: crashed runs are tried again"),
]


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    return kept | {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", **more}


def deploy(home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "quantpress", "deploy", *arguments]
    return subprocess.run(command, env=environment(home, **more), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API of a server that runs its services. They carry out the automations."""
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--no-ui",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    with (home / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, env=environment(home), stdout=log, stderr=subprocess.STDOUT)
    api = f"http://127.0.0.1:{port}/api"
    try:
        while not is_healthy(api):
            assert process.poll() is None, (home / "log.txt").read_text()
            time.sleep(0.2)
        yield api
    finally:
        process.terminate()
        process.wait()


def is_healthy(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health").status_code == 200
    except httpx.TransportError:
        return False


def post(address: str, **body: Any) -> Any:
    return httpx.post(address, json=body).raise_for_status().json()


def state_of(api: str, run: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{api}/flow_runs/{run}").json()["state"]
    return found


def on_server(api: str) -> list[Any]:
    """Returns everything that `deploy` registers, as the server stores it."""
    parts = [post(f"{api}/{what}/filter") for what in ("work_pools", "deployments", "automations")]
    # The server changes some fields by itself when it checks whether the deployments' pools have workers.
    return [
        {key: value for key, value in each.items() if key not in ("updated", "status", "last_polled")}
        for part in parts
        for each in sorted(part, key=lambda item: item["name"])
    ]


@pytest.mark.slow
def test_a_second_deploy_changes_nothing_and_a_crashed_run_is_tried_again(server: str, tmp_path: Path) -> None:
    first = deploy(tmp_path, "--json", PREFECT_API_URL=server)
    assert first.returncode == 0, first.stderr
    assert [(each["kind"], each["name"]) for each in json.loads(first.stdout)] == EVERYTHING
    assert {each["change"] for each in json.loads(first.stdout)} == {"created"}
    before = on_server(server)

    second = deploy(tmp_path, PREFECT_API_URL=server)
    assert second.returncode == 0, second.stderr
    assert second.stdout.splitlines() == [f"{kind} {name}: unchanged" for kind, name in EVERYTHING]
    assert on_server(server) == before

    deployments = {each["name"]: each for each in post(f"{server}/deployments/filter")}
    schedules = {name: [each["active"] for each in found["schedules"]] for name, found in deployments.items()}
    assert schedules == {"nightly": [True], "nightly-gpu": [False], "cpu": [], "gpu": []}
    run = post(f"{server}/deployments/{deployments['cpu']['id']}/create_flow_run", parameters={"repo": "up/Model"})
    for state in ("PENDING", "RUNNING", "CRASHED"):
        post(f"{server}/flow_runs/{run['id']}/set_state", state={"type": state}, force=True)
    found = state_of(server, run["id"])
    while found["type"] == "CRASHED":
        time.sleep(0.2)
        found = state_of(server, run["id"])
    assert (found["type"], found["message"]) == ("SCHEDULED", "It crashed and is tried again.")


def test_prefect_gets_its_own_credentials_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in Prefect's place writes down its environment variables."""
    program = "import os, pathlib; pathlib.Path('seen.txt').write_text(chr(10).join(os.environ))"
    (tmp_path / "python").write_text(f"#!{sys.executable}\n{program}\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "PREFECT_API_KEY", "PREFECT_API_AUTH_STRING"):
        monkeypatch.setenv(name, "secret")
    run_prefect_deploy(tmp_path / "prefect.yaml", ["nightly"])
    seen = set((tmp_path / "seen.txt").read_text().splitlines())
    assert {"PATH", "PREFECT_API_KEY", "PREFECT_API_AUTH_STRING"} <= seen
    assert {"HF_TOKEN", "AWS_SECRET_ACCESS_KEY"} & seen == set()


def test_without_a_server_one_line_says_what_to_do(tmp_path: Path) -> None:
    without = deploy(tmp_path)
    assert (without.returncode, without.stdout) == (2, "")
    assert without.stderr == (
        "quantpress: no Prefect server is set: start one (prefect server start), and set PREFECT_API_URL\n"
    )
    unreachable = deploy(tmp_path, PREFECT_API_URL="http://127.0.0.1:9/api")
    assert unreachable.returncode == 1
    assert unreachable.stderr.startswith("quantpress: the Prefect server at http://127.0.0.1:9/api cannot be used: ")
    assert unreachable.stderr.count("\n") == 1
