"""Text from strangers becomes Markdown here, and nowhere else.

Names, licences and chat templates come from the Hub: they are data. The card's Jinja environment passes the
value of every expression through :func:`finished`, which escapes whatever is not already :class:`Markdown`.
A template therefore cannot forget to escape; it can only choose a better form (``code``, ``link``, ``fence``).
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
    """Text that is already Markdown: it goes into the card as it is."""

    __slots__ = ()


def escape(text: str) -> Markdown:
    """Plain text as Markdown that shows just that text, in a paragraph as in a table cell."""
    return Markdown(_BACKSLASHED.sub(r"\\\1", one_line(text)).translate(_ENTITIES))


def finished(value: object) -> str:
    """What an expression of a template becomes: Markdown stays, all else is escaped."""
    return value if isinstance(value, Markdown) else escape(str(value))


def code(text: str) -> Markdown:
    """An identifier in code type. Text with anything unusual in it is spelt in entities, safe in tables too."""
    flat = one_line(text)
    if flat and _SAFE_IN_CODE.fullmatch(flat):
        return Markdown(f"`{flat}`")
    spelt = "".join(c if c.isalnum() or c == " " else f"&#{ord(c)};" for c in flat)
    return Markdown(f"<code>{spelt}</code>")


def link(label: str, url: str | None) -> Markdown:
    """A link; just the label where the address is missing or is no web address (``javascript:`` and the like)."""
    text = finished(label)
    if url is None or not (url.startswith("/") or is_web_address(url)):
        return Markdown(text)
    return Markdown(f"[{text}]({quote(one_line(url), safe='/:?=&%@+~,.-_')})")


def image(description: str, url: str) -> Markdown:
    """A picture with its description as alternative text."""
    return Markdown("!" + link(description, url))


def is_web_address(url: str) -> bool:
    """Whether this is an absolute http or https address."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)


def path(*segments: str) -> str:
    """Segments joined and percent-encoded for the path of an address. Slashes stay: repo ids have them."""
    return "/".join(quote(one_line(segment), safe="/") for segment in segments)


def segment(text: str) -> str:
    """One segment of an address: slashes are encoded too, as the Hub wants them in revisions."""
    return quote(one_line(text), safe="")


def fence(text: str, language: str = "") -> Markdown:
    """A fenced block whose fence is longer than any run of backticks in the text."""
    plain = plain_lines(text)
    longest = max((len(run) for run in re.findall("`+", plain)), default=0)
    ticks = "`" * max(3, longest + 1)
    return Markdown(f"{ticks}{language}\n{plain.strip(chr(10))}\n{ticks}")


def shell(text: str) -> Markdown:
    """One word of a shell command, quoted where it must be. For use inside a ``fence``."""
    return Markdown(shlex.quote(one_line(text)))


def literal(text: str) -> Markdown:
    """A Python (and JSON) string literal. For use inside a ``fence``."""
    return Markdown(json.dumps(one_line(text), ensure_ascii=False))
