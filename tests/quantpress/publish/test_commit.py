"""What a press may do to a repo. It must not change what came after it looked, or what it did not make."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.hf_api import GitCommitInfo

from quantpress.errors import Refused
from quantpress.localhub.server import running_hub
from quantpress.publish.commit import Outrun
from quantpress.record.manifest import Entry, Verdict
from tests.support import samples
from tests.support.by_hand import HandPress

OTHER = "gptq-4bit-32g-actorder_True"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[HfApi]:
    with running_hub(tmp_path / "hub") as hub:
        yield HfApi(endpoint=hub.endpoint, token=hub.create_token("press", "write"))


@pytest.fixture
def press(api: HfApi, tmp_path: Path) -> HandPress:
    return HandPress(api, tmp_path, "press/SmolLM2-135M-Instruct-GGUF")


@pytest.fixture
def branched(api: HfApi, tmp_path: Path) -> HandPress:
    return HandPress(api, tmp_path, "press/SmolLM2-135M-Instruct-GPTQ")


def test_of_two_presses_that_found_no_repo_the_later_one_is_outrun(press: HandPress) -> None:
    q4, q8 = samples.gguf({"Q4_K_M": 6.17, "Q8_0": 8.51}).entries
    seen = press.read()
    press.publish([q4], "the faster one")
    with pytest.raises(Outrun):
        press.publish([q8], "the slower one", shelf=seen)
    assert press.titles() == ["the faster one", "initial commit"]
    press.publish([q8], "the slower one, anew")
    assert [entry.variant for entry in press.manifest().entries] == ["Q4_K_M", "Q8_0"]


def test_of_two_presses_that_begin_a_branch_the_later_one_is_outrun(branched: HandPress) -> None:
    default, other, _ = samples.gptq().entries
    branched.publish([default], "main alone")
    seen = branched.read()
    branched.publish([other], "the faster one")
    with pytest.raises(Outrun):
        branched.publish([other.model_copy(update={"seconds": 99.0})], "the slower one", shelf=seen)
    assert branched.titles(OTHER) == ["the faster one", "initial commit"]
    assert branched.titles() == ["the faster one", "main alone", "initial commit"]


def add(press: HandPress, *paths: str, branch: str = "main") -> None:
    """Commits files that a person adds."""
    operations = [CommitOperationAdd(path, b"mine") for path in paths]
    press.api.create_commit(press.repo_id, operations, commit_message="mine", revision=branch)


def test_a_variant_that_is_withheld_now_goes_and_what_a_person_added_stays(press: HandPress) -> None:
    q4, q8 = samples.gguf({"Q4_K_M": 6.17, "Q8_0": 8.51}).entries
    press.publish([q4, q8], "one")
    add(press, "notes.txt", "my-own.gguf")
    withheld: dict[str, Any] = {"status": "withheld", "verdict": Verdict(passed=False, reasons=["too far"])}
    press.publish([q4.model_copy(update=withheld), q8], "two")
    assert press.files() == [
        ".gitattributes",
        "README.md",
        "SHA256SUMS",
        "SmolLM2-135M-Instruct-Q8_0.gguf",
        "my-own.gguf",
        "notes.txt",
        "quantpress.json",
    ]
    assert [line.split("  ")[1] for line in press.text("SHA256SUMS").splitlines()] == [
        "README.md",
        "SmolLM2-135M-Instruct-Q8_0.gguf",
        "quantpress.json",
    ]


def test_what_a_person_added_to_a_branch_stays(branched: HandPress) -> None:
    _, other, _ = samples.gptq().entries
    branched.publish([other], "one")
    add(branched, "notes.txt", branch=OTHER)
    fewer = other.artifact.model_copy(update={"files": other.artifact.files[1:]})
    branched.publish([other.model_copy(update={"artifact": fewer})], "two")
    assert branched.files(OTHER) == [
        ".gitattributes", "README.md", "SHA256SUMS", "model.safetensors", "notes.txt", "quantpress.json",
        "tokenizer.json",
    ]  # fmt: skip


class Squashed(HfApi):
    """A Hub on which every repo's history was squashed, so that the newest commit is also the first."""

    def list_repo_commits(self, repo_id: str, **options: Any) -> list[GitCommitInfo]:
        return super().list_repo_commits(repo_id, **options)[:1]


def test_nothing_of_main_shows_on_a_branch_that_begins_after_the_history_was_squashed(branched: HandPress) -> None:
    default, other, _ = samples.gptq().entries
    branched.publish([default], "one")
    add(branched, "notes.txt")
    only_weights = other.artifact.model_copy(update={"files": other.artifact.files[1:2]})
    api = Squashed(endpoint=branched.api.endpoint, token=branched.api.token)
    HandPress(api, branched.folder, branched.repo_id).publish(
        [other.model_copy(update={"artifact": only_weights})], "two"
    )
    assert branched.files(OTHER) == [
        ".gitattributes", "README.md", "SHA256SUMS", "model.safetensors", "quantpress.json",
    ]  # fmt: skip
    assert {"config.json", "notes.txt", "tokenizer.json"} <= set(branched.files())


def test_a_repo_that_somebody_else_made_while_the_press_worked_is_left_alone(press: HandPress) -> None:
    press.api.create_repo(press.repo_id)
    add(press, "SmolLM2-135M-Instruct-Q8_0.gguf", "README.md")
    with pytest.raises(Refused, match=r"^press/SmolLM2-135M-Instruct-GGUF was not made by quantpress"):
        press.publish(samples.gguf({"Q8_0": 8.51}).entries, "one")
    assert press.titles() == ["mine", "initial commit"]


def tagged(press: HandPress) -> dict[str, str]:
    return {tag.name: tag.target_commit for tag in press.api.list_repo_refs(press.repo_id).tags}


def test_a_tag_names_the_commit_that_was_replaced(press: HandPress) -> None:
    q4, q8 = samples.gguf({"Q4_K_M": 6.17, "Q8_0": 8.51}).entries
    moved = samples.source(sha="f" * 40)
    press.publish([q4, q8], "one")
    too_early = press.read()
    # A press that is killed after it makes the tag, and before it commits, leaves this tag.
    press.api.create_tag(press.repo_id, tag="v1")
    add(press, "notes.txt")
    replaced = press.head()
    press.publish([q8], "two", source=moved)
    assert tagged(press) == {"v1": replaced}
    with pytest.raises(Outrun):
        press.publish([q4], "from what was read too early", shelf=too_early, source=moved)
    assert tagged(press) == {"v1": replaced}
    press.publish([q4], "three", source=moved)
    assert tagged(press) == {"v1": replaced}


def test_a_press_that_is_outrun_leaves_no_tag_in_the_way(branched: HandPress) -> None:
    _, other, _ = samples.gptq().entries
    moved = samples.source(sha="f" * 40)
    branched.publish([other], "one")
    too_early = branched.read()
    add(branched, "notes.txt", branch=OTHER)
    with pytest.raises(Outrun):
        branched.publish([other], "outrun", shelf=too_early, source=moved)
    assert tagged(branched) == {f"v1-{OTHER}": too_early.heads[OTHER]}
    replaced = {branch: branched.head(branch) for branch in ("main", OTHER)}
    branched.publish([other], "two", source=moved)
    assert tagged(branched) == {"v1": replaced["main"], f"v1-{OTHER}": replaced[OTHER]}


def withheld(entry: Entry) -> Entry:
    return entry.model_copy(update={"status": "withheld", "verdict": Verdict(passed=False, reasons=["too far"])})


def test_no_branch_begins_for_a_variant_that_is_withheld(branched: HandPress) -> None:
    default, other, _ = samples.gptq().entries
    branched.publish([default, withheld(other)], "one")
    found = branched.read()
    assert list(found.heads) == ["main"]
    assert [(entry.variant, entry.status) for entry in found.manifests["main"].entries] == [
        ("gptq-4bit-64g-actorder_True", "published"),
        (OTHER, "withheld"),
    ]
    entry = found.entry(OTHER, OTHER)
    assert entry is not None and entry.status == "withheld"
    branched.publish([other], "its gate lets it through now")
    assert list(branched.read().heads) == ["main", OTHER]
    assert "model.safetensors" in branched.files(OTHER)


def test_a_published_variant_that_is_withheld_leaves_its_branch(branched: HandPress) -> None:
    default, other, _ = samples.gptq().entries
    branched.publish([default, other], "one")
    branched.publish([withheld(other)], "two")
    assert branched.files(OTHER) == [".gitattributes", "README.md", "SHA256SUMS", "quantpress.json"]
    for branch in ("main", OTHER):
        entry = branched.manifest(branch).entry(OTHER)
        assert entry is not None and entry.status == "withheld"
    assert "too far" in branched.text("README.md", OTHER)
    assert "model.safetensors" in branched.files()
