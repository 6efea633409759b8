"""A published comparison records what it was made from and which collection holds it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from quantpress.comparison.publish import publish_comparison
from quantpress.comparison.report import read_manifests
from quantpress.comparison.state import why_outdated
from quantpress.localhub.server import running_hub
from quantpress.record.manifest import Manifest
from tests.support import samples

MODEL = "SmolLM2-135M-Instruct"
GGUF, GPTQ, COMPARISON = (f"press/{MODEL}-{suffix}" for suffix in ("GGUF", "GPTQ", "quantized"))


@pytest.fixture
def api(tmp_path: Path) -> Iterator[HfApi]:
    with running_hub(tmp_path / "hub") as hub:
        yield HfApi(endpoint=hub.endpoint, token=hub.create_token("press", "write"))


def put(api: HfApi, repo_id: str, manifest: Manifest) -> None:
    api.create_repo(repo_id)
    operations = [CommitOperationAdd("quantpress.json", manifest.to_json().encode())]
    api.create_commit(repo_id, operations, commit_message="press")


def compare(api: HfApi, collected: list[str], folder: Path) -> dict[str, Any]:
    """Publishes a comparison and returns its record of what it was made from."""
    publish_comparison(api, "press", samples.source(), False, collected)
    path = api.hf_hub_download(COMPARISON, "made_from.json", cache_dir=folder)
    found: dict[str, Any] = json.loads(Path(path).read_text())
    return found


def why(api: HfApi) -> str | None:
    return why_outdated(api, COMPARISON, read_manifests(api, "press", MODEL))


def test_a_collection_that_could_not_be_kept_is_work_for_another_night(api: HfApi, tmp_path: Path) -> None:
    put(api, GGUF, samples.gguf())
    state = compare(api, [], tmp_path)
    assert (state["model"], state["collected"]) == ("HuggingFaceTB/SmolLM2-135M-Instruct", [])
    assert why(api) == f"its collection lacks {COMPARISON}, {GGUF}"
    assert compare(api, [COMPARISON, GGUF], tmp_path)["collected"] == [GGUF, COMPARISON]
    assert why(api) is None


def test_what_the_collection_holds_stays_known_and_a_new_format_is_missed(api: HfApi, tmp_path: Path) -> None:
    put(api, GGUF, samples.gguf())
    compare(api, [COMPARISON, GGUF], tmp_path)
    put(api, GPTQ, samples.gptq())
    assert why(api) == f"its comparison is older than the manifest of {GPTQ}"
    assert compare(api, [], tmp_path)["collected"] == [GGUF, COMPARISON]
    assert why(api) == f"its collection lacks {GPTQ}"


def test_the_same_state_is_no_commit(api: HfApi, tmp_path: Path) -> None:
    put(api, GGUF, samples.gguf())
    compare(api, [GGUF], tmp_path)
    before = api.model_info(COMPARISON).sha
    compare(api, [], tmp_path)
    assert api.model_info(COMPARISON).sha == before
