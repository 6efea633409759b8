"""Text from strangers, made plain: on one line, or in lines, without what hides or reorders it."""

from __future__ import annotations

import re

#: Longer names are cut: no identifier of the Hub is longer (repo ids end at 96 characters, file names at 255).
_LONGEST = 300
#: Control characters, line and paragraph separators: each run becomes one space.
_CONTROL = re.compile("[\x00-\x20\x7f-\x9f\u2028\u2029]+")
#: Characters that reorder or hide the text around them (Unicode bidirectional controls, zero-width, BOM), and
#: lone surrogates, which JSON can carry but UTF-8 cannot.
_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
#: Within a fenced block lines and tabs stay; other control characters go.
_CONTROL_IN_BLOCK = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029]")


def one_line(text: str) -> str:
    """The text on one line, without control and invisible characters, at most 300 characters."""
    flat = _CONTROL.sub(" ", _INVISIBLE.sub("", text)).strip()
    return flat if len(flat) <= _LONGEST else flat[: _LONGEST - 1] + "…"


def plain_lines(text: str) -> str:
    """The text in lines that end with ``\\n``, without control (but tabs) and invisible characters."""
    return _CONTROL_IN_BLOCK.sub("", _INVISIBLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))
