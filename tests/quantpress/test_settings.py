"""The pages list all settings and all actions of the plan."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from quantpress.plan.decide import Action
from quantpress.settings import Settings

HOUSE = Path(__file__).parents[2]


def first_cells(page: str) -> set[str]:
    """Returns all names in code style in the first cells of a page's tables."""
    rows = re.findall(r"^\| (`[^|]+) \|", (HOUSE / page).read_text(encoding="utf-8"), re.M)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def test_the_readme_lists_every_setting() -> None:
    assert set(Settings.model_fields) - first_cells("README.md") == set()


def test_the_nightly_page_lists_every_action() -> None:
    assert set(get_args(Action)) - first_cells("docs/nightly.md") == set()
