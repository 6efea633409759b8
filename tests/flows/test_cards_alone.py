"""Nights without quantizing. What is published is compared, put into a collection, and gated as its source is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.support.line import Fault, Line, bad_line
from tests.support.nights import night
from tests.support.operating import Operator
from tests.support.planned import Press

pytestmark = pytest.mark.slow

GGUF, COMPARISON = "press/M-GGUF", "press/M-quantized"
LINE: dict[str, Any] = {"repo": "up/M", "formats": ["gguf"], "variants": {"gguf": ["Q8_0"]}}


@pytest.fixture(scope="module")
def line(operator: Operator) -> Iterator[Line]:
    with bad_line(operator.hub.endpoint) as line:
        yield line


@pytest.fixture(scope="module")
def behind(operator: Operator, line: Line, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """An operator behind a line (a proxy). One rung (a GGUF variant) is published and verified."""
    press = Press(operator.hub, operator.api, operator.folder / "home")
    press.source("up/M")
    first = night(press, LINE, tmp_path_factory.mktemp("night"))
    first.press(first.entry("Q8_0", verified="a" * 40))
    operator.write_catalog([LINE])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTPRESS_WINDOWS", "64")
        patch.setenv("QUANTPRESS_PATIENCE", "0")
        yield replace(operator, hub=replace(operator.hub, endpoint=line.endpoint))


def run(operator: Operator) -> str:
    code, _, err = operator.call("run")
    assert code == 0, err
    return err


def work(operator: Operator) -> list[tuple[str, str]]:
    return [(step["action"], step["reason"]) for step in operator.plan() if step["action"] != "keep"]


def collected(operator: Operator) -> list[str]:
    return [item.item_id for each in operator.api.list_collections(owner="press") for item in each.items]


def test_a_collection_that_the_hub_refused_is_kept_the_night_after(behind: Operator, line: Line) -> None:
    assert work(behind) == [("compare", "its formats are not compared yet")]
    line.decide = lambda request: Fault.ERROR if request.path.startswith("/api/collections") else None
    assert "the collection was not updated: keeping the collection 'M, quantized' of press on" in run(behind)
    line.decide = lambda _: None
    assert work(behind) == [("compare", f"its collection lacks {COMPARISON}, {GGUF}")]
    run(behind)
    assert collected(behind) == [COMPARISON, GGUF]
    assert work(behind) == []


def test_repositories_are_gated_before_their_cards_say_so(behind: Operator, line: Line) -> None:
    behind.api.update_repo_settings("up/M", gated="manual")
    assert work(behind) == [("card", "the source is gated now (manual)")]
    line.seen.clear()
    run(behind)
    changes = [request.path for request, _ in line.seen if request.method == "PUT" or request.kind == "commit"]
    assert changes == [
        f"/api/models/{COMPARISON}/settings",
        f"/api/models/{GGUF}/settings",
        f"/api/models/{GGUF}/commit/main",
        f"/api/models/{COMPARISON}/commit/main",
    ]
    assert [behind.api.model_info(repo_id).gated for repo_id in (GGUF, COMPARISON)] == ["manual", "manual"]
    assert work(behind) == []


def test_a_hub_without_collections_is_no_work(behind: Operator, line: Line) -> None:
    """Runs last, because it makes the comparison anew on a Hub that lost its collections."""
    behind.api.delete_repo(COMPARISON)
    line.absent = "/api/collections"
    err = run(behind)
    assert "the collection was not updated" not in err
    assert work(behind) == []
