"""A press is killed between two steps of publishing. The next press puts in order what the killed press did not.

If the kill came between a branch's commit and the commit of ``main``, the next plan sees that, and a commit of cards
mends it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quantpress.errors import QuantpressError
from quantpress.machine.workspace import Workspace
from quantpress.press.format_stages import PLAIN
from quantpress.press.model import press_model
from quantpress.press.model_stages import ModelStages
from quantpress.record.manifest import Entry
from quantpress.settings import Settings
from quantpress.upkeep.retract import withdrawn
from tests.support.nights import Night, card, manifest, night
from tests.support.planned import Press, running_press

DEFAULT, OTHER = "gptq-4bit-64g-actorder_False", "gptq-4bit-32g-actorder_True"
REPO = "press/M-GPTQ"
LINE: dict[str, Any] = {"repo": "up/M", "formats": ["gptq"], "variants": {"gptq": [DEFAULT, OTHER]}}


@pytest.fixture
def press(tmp_path: Path) -> Iterator[Press]:
    with running_press(tmp_path) as press:
        press.source("up/M")
        yield press


@pytest.fixture
def published(press: Press, tmp_path: Path) -> Night:
    """Publishes and verifies both variants, and returns the next night."""
    first = night(press, LINE, tmp_path)
    first.press(first.entry(DEFAULT, verified="a" * 40), first.entry(OTHER, verified="b" * 40))
    return night(press, LINE, tmp_path)


def card_step(press: Press, folder: Path) -> str | None:
    step = night(press, LINE, folder).plan.card
    return step and step.reason


def on_main(press: Press, folder: Path) -> Entry:
    entry = manifest(press, REPO, folder).entry(OTHER)
    assert entry is not None
    return entry


def test_nothing_is_mended_where_both_say_the_same(press: Press, published: Night, tmp_path: Path) -> None:
    assert card_step(press, tmp_path) is None


def test_a_variant_that_was_verified(press: Press, published: Night, tmp_path: Path) -> None:
    published.press(published.entry(DEFAULT), verified={OTHER: "c" * 40}, killed_after=OTHER)
    assert card_step(press, tmp_path) == f"the entries on main and on the variants' own branches differ: {OTHER}"
    night(press, LINE, tmp_path).cards()
    assert on_main(press, tmp_path).verified == "c" * 40


def test_a_variant_that_was_made_anew_and_withheld(press: Press, published: Night, tmp_path: Path) -> None:
    published.press(published.withheld(OTHER, "too far"), killed_after=OTHER)
    assert on_main(press, tmp_path).status == "published"
    after = night(press, LINE, tmp_path)
    assert [(step.variant, step.action, step.reason) for step in after.model.steps][1:3] == [
        (OTHER, "keep", "withheld: too far"),
        ("", "card", f"the entries on main and on the variants' own branches differ: {OTHER}"),
    ]
    after.cards()
    assert on_main(press, tmp_path).status == "withheld"
    assert "| too far |" in card(press, REPO, tmp_path)
    assert card_step(press, tmp_path) is None


def test_a_variant_that_was_withdrawn(press: Press, published: Night, tmp_path: Path) -> None:
    branch = withdrawn(manifest(press, REPO, tmp_path, OTHER), OTHER, "broken")
    press.put(REPO, {"quantpress.json": branch.to_json().encode()}, OTHER)
    assert card_step(press, tmp_path) == f"the entries on main and on the variants' own branches differ: {OTHER}"
    night(press, LINE, tmp_path).cards()
    assert on_main(press, tmp_path).retraction == "broken"
    assert card_step(press, tmp_path) is None


def test_the_first_variant_of_a_repo_is_on_a_branch(press: Press, tmp_path: Path) -> None:
    first = night(press, LINE, tmp_path)
    first.press(first.entry(OTHER, verified="a" * 40), killed_after=OTHER)
    assert card_step(press, tmp_path) == f"the entries on main and on the variants' own branches differ: {OTHER}"
    night(press, LINE, tmp_path).cards()
    assert on_main(press, tmp_path).branch == OTHER
    assert card_step(press, tmp_path) is None


def test_a_branch_that_a_person_deleted(press: Press, published: Night, tmp_path: Path) -> None:
    press.api.delete_branch(REPO, branch=OTHER)
    after = night(press, LINE | {"variants": {"gptq": [DEFAULT]}}, tmp_path)
    assert after.plan.card is not None
    after.cards()
    assert [entry.variant for entry in manifest(press, REPO, tmp_path).entries] == [DEFAULT]


def test_a_variant_that_was_published_leaves_the_disk_before_others_are_made(press: Press, tmp_path: Path) -> None:
    first = night(press, LINE, tmp_path)
    first.press(first.entry(OTHER, verified="a" * 40))
    after = night(press, LINE, tmp_path)
    assert [each.variant.name for each in after.plan.to_make] == [DEFAULT]
    workspace = Workspace(tmp_path, "up/M", after.source.sha)
    for variant in (DEFAULT, OTHER):
        file = workspace.variant(after.planned(variant).recipe) / "files" / "model.safetensors"
        file.parent.mkdir(parents=True)
        file.touch()
    # A run for some formats leaves the others' work alone.
    other = workspace.work / "awq" / f"awq-4bit-64g-{'0' * 12}" / "files" / "model.safetensors"
    other.parent.mkdir(parents=True)
    other.touch()

    def refuse(*_: object) -> Any:
        raise QuantpressError("no disk")

    # The first stage stops the press, because later stages take minutes, and tests/flows tests them.
    stages = ModelStages(*[refuse] * 8, format=PLAIN)
    with pytest.raises(QuantpressError, match="no disk"):
        list(press_model(after.model, Settings(home=tmp_path), stages))
    left = sorted(file.parts[-3].rsplit("-", 1)[0] for file in workspace.work.rglob("*.safetensors"))
    assert left == ["awq-4bit-64g", DEFAULT]
