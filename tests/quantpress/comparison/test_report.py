"""`quantpress report` against an embedded Hub. The command reads manifests and nothing else."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from typer.testing import CliRunner

from quantizers import third_party
from quantpress.card.context import gather_context
from quantpress.cli.app import app
from quantpress.comparison.report import read_manifests
from quantpress.errors import BadInput
from quantpress.hub.hubs import Hubs
from quantpress.localhub.server import running_hub
from quantpress.record.manifest import Manifest
from quantpress.settings import Settings
from tests.support import samples


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_hub(tmp_path_factory.mktemp("hub")) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.create_token("press", "write"))
        published: dict[str, Manifest] = {"GGUF": samples.gguf(), "GPTQ": samples.gptq()}
        for suffix, manifest in published.items():
            repo_id = f"press/SmolLM2-135M-Instruct-{suffix}"
            api.create_repo(repo_id)
            content = io.BytesIO(manifest.to_json().encode())
            api.create_commit(repo_id, [CommitOperationAdd("quantpress.json", content)], commit_message="manifest")
        yield hub.endpoint


@pytest.fixture(autouse=True)
def settings(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUANTPRESS_TARGET_ENDPOINT", endpoint)
    monkeypatch.setenv("QUANTPRESS_NAMESPACE", "press")


def test_json_is_printed_with_both_formats_in_it() -> None:
    done = CliRunner().invoke(app, ["report", "--model", "HuggingFaceTB/SmolLM2-135M-Instruct", "--format", "json"])
    assert done.exit_code == 0, done.output
    assert {row["format"] for row in json.loads(done.stdout)["variants"]} == {"gguf", "gptq"}


def test_a_broken_package_of_another_format_stops_no_report_and_no_card(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "formats_gone-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: formats_gone\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[quantpress.quantizers]\nmine = formats_gone:Format\n")
    monkeypatch.syspath_prepend(tmp_path)
    third_party.entry_points.cache_clear()
    api = HfApi(endpoint=endpoint)
    repo_id = "press/SmolLM2-135M-Instruct-GGUF"
    try:
        manifests = read_manifests(api, "press", "SmolLM2-135M-Instruct")
        context, missing = gather_context(
            manifests[repo_id], repo_id, Settings(target_endpoint=endpoint), Hubs(api, api)
        )
    finally:
        third_party.entry_points.cache_clear()

    assert list(manifests) == [repo_id, "press/SmolLM2-135M-Instruct-GPTQ"]
    assert context.siblings == {"gptq": "press/SmolLM2-135M-Instruct-GPTQ"}
    assert missing is not None  # the source is on no Hub here


def test_files_are_written_where_they_are_wanted(tmp_path: Path) -> None:
    command = ["report", "--model", "SmolLM2-135M-Instruct", "--format", "md,html,csv", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "comparison.csv", "comparison.html", "comparison.md",
        "divergence-memory.png", "divergence.png", "perplexity-memory.png", "perplexity.png",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["--model", "up/Nothing"], "has no repository of press with a format of Nothing: press it first"),
        (["--model", "SmolLM2-135M-Instruct", "--format", "pdf"], "unknown report format 'pdf': use md, html, json"),
    ],
)
def test_bad_input_is_one_line(command: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["report", *command])
    assert isinstance(done.exception, BadInput)
    assert said in str(done.exception)
