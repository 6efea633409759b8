"""Cards that cost much to show."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from quantpress.localhub import rendering
from quantpress.localhub.rendering import CardNotShown, Cards

if TYPE_CHECKING:
    from tests.quantpress.localhub.conftest import LiveHub


@pytest.mark.parametrize(
    "text",
    ["![" * 130_000, "<ul><li>" * 30_000],
    ids=["images", "nested HTML"],
)
def test_a_card_that_takes_minutes_is_given_up_once(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_WALL_SECONDS", 600)  # a machine that runs other tests needs long for 3 s
    card, cards = tmp_path / "card", Cards()
    card.write_text(text)
    with pytest.raises(CardNotShown, match="too large"):
        cards.html(card, "/press/m/resolve/main/")
    started = time.monotonic()
    with pytest.raises(CardNotShown, match="too large"):
        cards.html(card, "/press/m/resolve/main/")
    assert time.monotonic() - started < 1  # giving up took 3 s


def test_a_card_is_rendered_once_for_each_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def render(_: Path, files_address: str) -> str:
        made.append(files_address)
        return f"<p>{len(made)}</p>"

    monkeypatch.setattr(rendering, "_render", render)
    cards = Cards()
    assert [cards.html(tmp_path / "card", address) for address in "aabab"] == [
        "<p>1</p>", "<p>1</p>", "<p>2</p>", "<p>1</p>", "<p>2</p>",
    ]  # fmt: skip
    assert made == ["a", "b"]


def test_a_costly_card_does_not_hold_up_its_page(live_hub: LiveHub) -> None:
    live_hub.create("costly")
    live_hub.add_text("README.md", "---\nlicense: mit\n---\n" + "![" * 1_000_000, "press/costly")
    started = time.monotonic()
    page = live_hub.send("GET", "/press/costly")
    assert page.status == 200 and time.monotonic() - started < 55
    assert "too large to be shown" in page.body.decode()
    assert "license:mit" in page.body.decode()
