"""Finds the Jinja templates of the cards, and computes a fingerprint of the templates that make a card."""

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
    """Returns the folders to search for the templates of a format's card. The first folder is searched first."""
    return [templates, *template_folders(format_name)]


def templates_fingerprint(format_name: str, templates: Path = TEMPLATES) -> str:
    """Returns the :func:`fingerprint` of a format's card template. Returns an empty text if there is no template."""
    return fingerprint([f"{format_name}.md.jinja"], template_path(format_name, templates))


def fingerprint(names: Sequence[str], folders: Sequence[Path] = (TEMPLATES,)) -> str:
    """Returns the hex SHA-256 of the named templates and of all templates that they extend, include or import.

    Reads each template from the first folder that has it. Returns an empty text if none of the templates exists.
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
    """Returns the sandboxed Jinja environment of the cards. ``templates`` are the folders to search.

    In this environment a missing value is an error. Every value that is not yet Markdown is escaped.
    """
    environment = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(templates),
        undefined=StrictUndefined,
        finalize=markdown.finished,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # ``finalize`` escapes, because autoescape would escape for HTML and not for Markdown
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
