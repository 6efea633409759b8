"""The check of every revision finds a card that names a file that is not there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from quantpress.hub.hubs import Hubs
from quantpress.localhub.server import RunningHub, running_hub
from quantpress.record.manifest import Verdict
from quantpress.settings import Settings
from quantpress.upkeep.retract import retract
from tests.support import samples
from tests.support.by_hand import HandPress
from tests.support.history import assert_every_revision_was_whole, weights_named_on

GGUF, GPTQ = "press/SmolLM2-135M-Instruct-GGUF", "press/SmolLM2-135M-Instruct-GPTQ"
OTHER = "gptq-4bit-32g-actorder_True"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[RunningHub]:
    with running_hub(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def api(hub: RunningHub) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=hub.create_token("press", "write"))


def say_too_much(press: HandPress, branch: str, sentence: str) -> None:
    """Commits the card with one more sentence, and a SHA256SUMS that fits this card."""
    card = press.text("README.md", branch)
    other = f"{card}\n{sentence}\n"
    before, after = (hashlib.sha256(text.encode()).hexdigest() for text in (card, other))
    sums = press.text("SHA256SUMS", branch).replace(before, after)
    operations = [
        CommitOperationAdd("README.md", other.encode()),
        CommitOperationAdd("SHA256SUMS", sums.encode()),
    ]
    press.api.create_commit(press.repo_id, operations, commit_message="lie", revision=branch)


def test_cards_that_tell_of_what_went_were_whole(hub: RunningHub, api: HfApi, tmp_path: Path) -> None:
    """The card tells of withheld and retracted variants and of the source's files. It names none of them as its own."""
    press = HandPress(api, tmp_path, GGUF)
    q2, q4, q8 = samples.gguf({"Q2_K": 5.1, "Q4_K_M": 6.17, "Q8_0": 8.51}).entries
    far = q2.model_copy(update={"status": "withheld", "verdict": Verdict(passed=False, reasons=["too far"])})
    press.publish([far, q4, q8], "one", source=samples.source(files={"model.safetensors": "old"}))
    retract(Hubs(api, api), GGUF, "Q4_K_M", "broken", Settings(target_endpoint=api.endpoint))
    press.publish([far, q8], "two", source=samples.source(sha="f" * 40, files={"model.safetensors": "new"}))
    assert [len(manifest.entries) for manifest in assert_every_revision_was_whole(hub.root, GGUF)] == [3, 3, 3]
    card = press.text("README.md")
    assert "`model.safetensors`" in card.split("The source has moved since")[1]
    assert weights_named_on(card) == {"SmolLM2-135M-Instruct-Q8_0.gguf"}


@pytest.mark.parametrize(
    "sentence",
    [
        "[Q4\\_K\\_M](/press/SmolLM2-135M-Instruct-GGUF/resolve/main/SmolLM2-135M-Instruct-Q4_K_M.gguf)",
        "`SmolLM2-135M-Instruct-Q4_K_M.gguf`",
        "hf download press/SmolLM2-135M-Instruct-GGUF SmolLM2-135M-Instruct-Q4_K_M.gguf --local-dir .",
    ],
)
def test_a_card_that_names_a_file_that_is_not_there_is_found(
    hub: RunningHub, api: HfApi, tmp_path: Path, sentence: str
) -> None:
    press = HandPress(api, tmp_path, GGUF)
    press.publish(samples.gguf({"Q8_0": 8.51}).entries, "one")
    assert_every_revision_was_whole(hub.root, GGUF)
    say_too_much(press, "main", sentence)
    with pytest.raises(AssertionError, match=r"SmolLM2-135M-Instruct-Q4_K_M\.gguf"):
        assert_every_revision_was_whole(hub.root, GGUF)


def test_branches_are_looked_at_too(hub: RunningHub, api: HfApi, tmp_path: Path) -> None:
    press = HandPress(api, tmp_path, GPTQ)
    press.publish(samples.gptq().entries, "one")
    assert len(assert_every_revision_was_whole(hub.root, GPTQ)) == 1
    say_too_much(press, OTHER, "`model-00001-of-00002.safetensors`")
    with pytest.raises(AssertionError, match=r"model-00001-of-00002\.safetensors"):
        assert_every_revision_was_whole(hub.root, GPTQ)
