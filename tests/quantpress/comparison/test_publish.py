"""The comparison's repository. What a person put there stays, and no older comparison replaces a newer one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from quantpress.comparison import publish
from quantpress.comparison.publish import publish_comparison
from quantpress.comparison.report import read_manifests
from quantpress.errors import Refused
from quantpress.localhub.server import running_hub
from quantpress.record.manifest import Manifest
from tests.support import samples
from tests.support.by_hand import HandPress

REPO = "press/SmolLM2-135M-Instruct-quantized"


@pytest.fixture
def press(tmp_path: Path) -> Iterator[HandPress]:
    with running_hub(tmp_path / "hub") as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.create_token("press", "write"))
        yield HandPress(api, tmp_path, "press/SmolLM2-135M-Instruct-GGUF")


def compare(press: HandPress) -> None:
    publish_comparison(press.api, "press", samples.source(), False)


def test_plots_go_with_what_they_compare_and_what_a_person_added_stays(press: HandPress) -> None:
    q4, q8 = samples.gguf({"Q4_K_M": 6.17, "Q8_0": 8.51}).entries
    press.publish([q4, q8], "two")
    compare(press)
    api = press.api
    assert {"divergence.png", "perplexity.png"} <= set(api.list_repo_files(REPO))
    api.create_commit(REPO, [CommitOperationAdd("notes.txt", b"mine")], commit_message="mine")
    press.publish([q8], "one", source=samples.source(sha="f" * 40))
    compare(press)
    assert api.list_repo_files(REPO) == [
        ".gitattributes",
        "README.md",
        "comparison.csv",
        "comparison.html",
        "comparison.json",
        "made_from.json",
        "notes.txt",
    ]


def test_a_slower_press_does_not_replace_a_newer_comparison(press: HandPress, monkeypatch: pytest.MonkeyPatch) -> None:
    q4, q8 = samples.gguf({"Q4_K_M": 6.17, "Q8_0": 8.51}).entries
    press.publish([q4], "one")
    compare(press)

    def slowly(api: HfApi, namespace: str, model: str) -> dict[str, Manifest]:
        """Reads the manifests. Then another press publishes more and publishes a newer comparison."""
        monkeypatch.undo()
        found = read_manifests(api, namespace, model)
        press.publish([q8], "two")
        compare(press)
        return found

    monkeypatch.setattr(publish, "read_manifests", slowly)
    compare(press)
    path = press.api.hf_hub_download(REPO, "comparison.json", revision=press.api.model_info(REPO).sha)
    compared = json.loads(Path(path).read_text())["variants"]
    assert [row["variant"] for row in compared] == ["Q4_K_M", "Q8_0"]
    assert len(press.api.list_repo_commits(REPO)) == 3


def test_a_repo_that_somebody_else_made_is_left_alone(press: HandPress) -> None:
    press.publish(samples.gguf({"Q8_0": 8.51}).entries, "one")
    press.api.create_repo(REPO)
    mine = [CommitOperationAdd(path, b"mine") for path in ("README.md", "model.safetensors")]
    press.api.create_commit(REPO, mine, commit_message="mine")
    with pytest.raises(Refused, match=f"^{REPO} was not made by quantpress"):
        compare(press)
    assert [commit.title for commit in press.api.list_repo_commits(REPO)] == ["mine", "initial commit"]
