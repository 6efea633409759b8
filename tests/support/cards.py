"""Cards of made-up manifests, and what a reader sees of them."""

from __future__ import annotations

import re
from typing import Any

import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from quantpress.card.context import CardContext
from quantpress.card.render import render_card
from quantpress.record.manifest import Manifest

CHATML = "{% for message in messages %}{{ '<|im_start|>' + message['role'] }}{% endfor %}"


def context(manifest: Manifest, **changes: object) -> CardContext:
    values: dict[str, object] = {
        "repo_id": f"press/SmolLM2-135M-Instruct-{manifest.format.upper()}",
        "quantized_by": "press",
    }
    return CardContext.model_validate(values | changes)


def card(manifest: Manifest, **changes: object) -> str:
    return render_card(manifest, context(manifest, **changes))


def html_of(text: str) -> str:
    return str(MarkdownIt("gfm-like", {"linkify": False}).render(text.split("---\n", 2)[2]))


def front_matter_of(text: str) -> dict[str, Any]:
    return yaml.safe_load(str(ModelCard(text, ignore_metadata_errors=False).data)) or {}


def table_rows(text: str, heading: str) -> list[list[str]]:
    """Returns the cells, without mark-up, of the first table whose first heading is ``heading``."""
    for table in re.findall(r"<table>.*?</table>", html_of(text), re.S):
        rows = [
            [
                re.sub(r"<[^>]*>", "", cell).replace("\u00a0", " ")
                for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row)
            ]
            for row in re.findall(r"<tr>(.*?)</tr>", table, re.S)
        ]
        if rows[0][0] == heading:
            return rows
    raise AssertionError(f"no table with the heading {heading}")
