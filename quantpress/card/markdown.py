"""Turns text from strangers into Markdown. No other module does this.

Names, licences and chat templates come from the Hub, so the card must show them as plain data. The card's Jinja
environment passes the value of every expression through :func:`finished`, which escapes every value that is not already
:class:`Markdown`. A template therefore cannot forget to escape a value. The template can only choose another form
(``code``, ``link``, ``fence``).
"""

from __future__ import annotations

import json
import re
import shlex
from urllib.parse import quote, urlsplit

from quantpress.text import one_line, plain_lines

_SAFE_IN_CODE = re.compile(r"[A-Za-z0-9 ._/:+=@,()~%±-]*")
_BACKSLASHED = re.compile(r"([\\_*~\[\]#])")
_ENTITIES = {ord(character): f"&#{ord(character)};" for character in "`|<>&$"}


class Markdown(str):
    """Text that is already Markdown. It goes into the card unchanged."""

    __slots__ = ()


def escape(text: str) -> Markdown:
    """Returns Markdown that shows exactly this plain text, in a paragraph or in a table cell."""
    return Markdown(_BACKSLASHED.sub(r"\\\1", one_line(text)).translate(_ENTITIES))


def finished(value: object) -> str:
    """Returns the text for the value of a template's expression. Leaves Markdown unchanged, and escapes the rest."""
    return value if isinstance(value, Markdown) else escape(str(value))


def code(text: str) -> Markdown:
    """Returns an identifier as code. Unusual characters are written as HTML entities, which are safe in tables too."""
    flat = one_line(text)
    if flat and _SAFE_IN_CODE.fullmatch(flat):
        return Markdown(f"`{flat}`")
    spelt = "".join(c if c.isalnum() or c == " " else f"&#{ord(c)};" for c in flat)
    return Markdown(f"<code>{spelt}</code>")


def link(label: str, url: str | None) -> Markdown:
    """Returns a link. If the address is missing or unsafe (such as ``javascript:``), returns only the label.

    An address is safe if it is a web address or begins with a slash.
    """
    text = finished(label)
    if url is None or not (url.startswith("/") or is_web_address(url)):
        return Markdown(text)
    return Markdown(f"[{text}]({quote(one_line(url), safe='/:?=&%@+~,.-_')})")


def image(description: str, url: str) -> Markdown:
    """Returns a picture with its description as alternative text."""
    return Markdown("!" + link(description, url))


def is_web_address(url: str) -> bool:
    """Says whether ``url`` is an absolute http or https address."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)


def path(*segments: str) -> str:
    """Percent-encodes segments and joins them to the path of an address. Keeps slashes, because repo ids have them."""
    return "/".join(quote(one_line(segment), safe="/") for segment in segments)


def segment(text: str) -> str:
    """Percent-encodes one segment of an address. Encodes slashes too, because the Hub requires this for revisions."""
    return quote(one_line(text), safe="")


def fence(text: str, language: str = "") -> Markdown:
    """Returns a fenced block. The fence is longer than any run of backticks in the text, so the text cannot end it."""
    plain = plain_lines(text)
    longest = max((len(run) for run in re.findall("`+", plain)), default=0)
    ticks = "`" * max(3, longest + 1)
    return Markdown(f"{ticks}{language}\n{plain.strip(chr(10))}\n{ticks}")


def shell(text: str) -> Markdown:
    """Returns one word of a shell command, quoted if necessary. For use inside a ``fence``."""
    return Markdown(shlex.quote(one_line(text)))


def literal(text: str) -> Markdown:
    """Returns a Python (and JSON) string literal. For use inside a ``fence``."""
    return Markdown(json.dumps(one_line(text), ensure_ascii=False))
