"""The command line as an operator calls it, against an embedded Hub."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from quantpress.localhub.server import RunningHub
from quantpress.machine.process import dies_with_parent
from quantpress.toolchain.cache import cache_folder, make_once


@dataclass(frozen=True)
class PrefectServer:
    """A running Prefect server. ``url`` is the address of its API, and ``home`` is the folder that it works in."""

    url: str
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a press that uses this server and runs on its machine."""
        return {
            "PREFECT_API_URL": self.url,
            "PREFECT_HOME": str(self.home),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }


@dataclass(frozen=True)
class Operator:
    """A folder with a catalog, an embedded Hub, and ``quantpress`` called as a program.

    Without a running Prefect server, each run starts a temporary server of its own, which takes longer than everything
    else at the run's start.
    """

    folder: Path
    hub: RunningHub
    token: str
    prefect: PrefectServer | None = None

    @property
    def api(self) -> HfApi:
        return HfApi(endpoint=self.hub.endpoint, token=self.token)

    @property
    def catalog(self) -> Path:
        return self.folder / "catalog.yaml"

    @property
    def log(self) -> Path:
        return self.folder / "press.log"

    def write_catalog(self, models: list[Any], **defaults: Any) -> None:
        settings = {"namespace": "press", "windows": 2}
        self.catalog.write_text(json.dumps({"settings": settings, "defaults": defaults, "models": models}))

    def environment(self, **more: str) -> dict[str, str]:
        """Children get one thread each. Tests share the cores, and a thread that waits for one costs CPU
        time: llama-perplexity took 1.0 s with one thread and 1.7 s with two, while another ran (2 cores)."""
        return os.environ | {
            "QUANTPRESS_SOURCE_ENDPOINT": self.hub.endpoint,
            "QUANTPRESS_TARGET_ENDPOINT": self.hub.endpoint,
            "QUANTPRESS_HOME": str(self.folder / "home"),
            "QUANTPRESS_THREADS": "1",
            "HF_TOKEN": self.token,
            "HF_HOME": str(self.folder / "huggingface"),
            "PREFECT_HOME": str(self.folder / "prefect"),
            "COLUMNS": "80",
            **(self.prefect.environment if self.prefect else {}),
            **more,
        }

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Starts ``quantpress``. A test can send signals to the process, because it is not warm."""
        return self._started(*arguments, **({"WARM_PRESSES": ""} | environment))

    def _started(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "quantpress", *arguments],
            cwd=self.folder,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def start_silent(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Starts a press that a test can kill. Its output is added to ``log`` and not sent through pipes, because
        Prefect's embedded server outlives the press and would keep the pipes open."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "quantpress", *arguments],
                cwd=self.folder,
                env=self.environment(**({"WARM_PRESSES": ""} | environment)),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self, press: subprocess.Popen[bytes]) -> None:
        """Kills a press that was started silently, and Prefect's embedded server, which is in its session."""
        press.kill()
        press.wait()
        with suppress(ProcessLookupError):
            os.killpg(press.pid, signal.SIGKILL)

    def call(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        """Returns exit code, standard output and standard error."""
        process = self._started(*arguments, **environment)
        out, err = process.communicate(timeout=800)
        return process.returncode, out, err

    def plan(self) -> list[dict[str, Any]]:
        code, out, err = self.call("plan", "--json")
        assert code == 0, err
        steps: list[dict[str, Any]] = json.loads(out)
        return steps

    def upload_source(self, repo_id: str, folder: Path) -> str:
        """Puts a model on the Hub and returns its commit sha."""
        self.api.create_repo(repo_id, exist_ok=True)
        return self.api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="source").oid

    def commits(self, repo_id: str, branch: str = "main") -> list[str]:
        return [commit.commit_id for commit in self.api.list_repo_commits(repo_id, revision=branch)]


@contextmanager
def prefect_server(folder: Path) -> Iterator[PrefectServer]:
    """Runs a Prefect server on 127.0.0.1, as an operator with many presses does.

    A press that finds such a server need not start its embedded one, which takes longer than everything else at its
    start. The database comes from the cache, because making one takes 10 of the 17 CPU seconds of a first start
    (measured).
    """
    ready = cache_folder() / "prefect" / version("prefect")
    shutil.copytree(make_once(ready, _make_database), folder, dirs_exist_ok=True)
    with _running(folder) as url:
        yield PrefectServer(url, folder)


def _make_database(folder: Path) -> None:
    with _running(folder):
        pass


@contextmanager
def _running(folder: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "prefect", "server", "start", "--no-services"]
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        env=os.environ | {"PREFECT_HOME": str(folder), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=dies_with_parent(),  # noqa: PLW1509 - system calls only; tests that are killed leave no server
    )
    url = f"http://127.0.0.1:{port}/api"
    try:
        while server.poll() is None:
            with suppress(urllib.error.URLError), urllib.request.urlopen(f"{url}/health", timeout=10):
                break
            time.sleep(0.2)
        assert server.poll() is None, "the Prefect server did not start"
        yield url
    finally:
        # SIGTERM first: if the server ends by itself, its whole database is in one file.
        os.killpg(server.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            server.wait(timeout=20)
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
