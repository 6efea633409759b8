"""Writes docs/benchmarks.md, with one section per benchmark. Each section names the command that writes the section."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from quantpress.files import write_text

_TITLE = "# Benchmarks\n\nEach section names the command that wrote it.\n"


def write_section(page: Path, heading: str, lines: Sequence[str]) -> None:
    """Replaces the section ``heading`` of ``page``, or appends the section if it is missing. Other sections stay the
    same."""
    text = page.read_text(encoding="utf-8") if page.exists() else _TITLE
    section = f"## {heading}\n\n" + "\n".join(lines) + "\n"
    found = re.search(rf"^## {re.escape(heading)}\n.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        write_text(page, f"{text.rstrip()}\n\n{section}")
    else:
        rest = text[found.end() :]
        write_text(page, text[: found.start()] + section + ("\n" + rest if rest else ""))
