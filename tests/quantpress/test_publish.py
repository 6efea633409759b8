"""What a press may do to a repo: nothing to what came after it looked, nothing to what it did not make."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from quantpress.localhub.server import running_hub
from quantpress.publish import Outrun
from tests.quantpress import samples
from tests.quantpress.by_hand import HandPress

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
        press.publish([q8], "the slower one", published=seen)
    assert press.titles() == ["the faster one", "initial commit"]
    press.publish([q8], "the slower one, anew")
    assert [entry.variant for entry in press.manifest().entries] == ["Q4_K_M", "Q8_0"]


def test_of_two_presses_that_begin_a_branch_the_later_one_is_outrun(branched: HandPress) -> None:
    default, other, _ = samples.gptq().entries
    branched.publish([default], "main alone")
    seen = branched.read()
    branched.publish([other], "the faster one")
    with pytest.raises(Outrun):
        branched.publish([other.model_copy(update={"seconds": 99.0})], "the slower one", published=seen)
    assert branched.titles(OTHER) == ["the faster one", "initial commit"]
    assert branched.titles() == ["the faster one", "main alone", "initial commit"]
