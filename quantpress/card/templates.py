"""Where the cards' templates are, and a fingerprint of the templates that made a card."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from jinja2 import FileSystemLoader, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from quantizers.third_party import template_folders
from quantpress.card import markdown

TEMPLATES = Path(__file__).parents[2] / "templates"

_USED = re.compile(r"""\{%-?\s*(?:extends|include|import|from)\s+["']([^"']+)["']""")


def template_path(format_name: str, templates: Path = TEMPLATES) -> list[Path]:
    """Returns the folders to search for the templates of a format's card, in this order."""
    return [templates, *template_folders(format_name)]


def templates_fingerprint(format_name: str, templates: Path = TEMPLATES) -> str:
    """Returns the :func:`fingerprint` of the template of a format's card. Empty if the format has no template."""
    return fingerprint([f"{format_name}.md.jinja"], template_path(format_name, templates))


def fingerprint(names: Sequence[str], folders: Sequence[Path] = (TEMPLATES,)) -> str:
    """Returns the hex SHA-256 of templates and of the templates that they extend, include or import.

    Each template is read from the first folder that has it. Empty if none exists.
    """
    digest, waiting, seen = hashlib.sha256(), list(names), set[str]()
    while waiting:
        name = waiting.pop()
        file = next((found for folder in folders if (found := folder / name).is_file()), None)
        if name in seen or file is None:
            continue
        seen.add(name)
        text = file.read_text(encoding="utf-8")
        digest.update(f"{name}\0{text}\0".encode())
        waiting += _USED.findall(text)
    return digest.hexdigest() if seen else ""


def markdown_environment(templates: Sequence[Path]) -> ImmutableSandboxedEnvironment:
    """Returns the Jinja environment of the cards.

    It is sandboxed. A missing value is an error. Every value that is not yet Markdown is escaped.
    """
    environment = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(templates),
        undefined=StrictUndefined,
        finalize=markdown.finished,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # finalize escapes instead: HTML's escapes are not Markdown's
    )
    environment.filters.update(
        code=markdown.code,
        fence=markdown.fence,
        link=markdown.link,
        image=markdown.image,
        shell=markdown.shell,
        literal=markdown.literal,
    )
    return environment
