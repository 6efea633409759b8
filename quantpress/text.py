"""Cleans text from strangers. Removes the characters that hide or reorder other text."""

from __future__ import annotations

import re

#: Texts with more characters are cut. No single name on the Hub is that long: a part of a repo id has at most 96
#: characters, and a file name at most 255.
_LONGEST = 300
#: A run of spaces, control characters, and line and paragraph separators. The run becomes one space.
_CONTROL = re.compile("[\x00-\x20\x7f-\x9f\u2028\u2029]+")
#: Characters that reorder or hide the text around them (Unicode bidirectional controls, zero-width characters, BOM).
#: Also lone surrogates, which JSON can carry but UTF-8 cannot.
_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
#: Control characters to remove within a fenced block. Line breaks and tabs stay.
_CONTROL_IN_BLOCK = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029]")


def one_line(text: str) -> str:
    """Returns the text on one line, without invisible characters, cut to 300 characters. Control characters become
    spaces."""
    flat = _CONTROL.sub(" ", _INVISIBLE.sub("", text)).strip()
    return flat if len(flat) <= _LONGEST else flat[: _LONGEST - 1] + "…"


def plain_lines(text: str) -> str:
    """Returns the text with ``\\n`` as its only line break. Removes invisible characters, and control characters except
    tabs."""
    return _CONTROL_IN_BLOCK.sub("", _INVISIBLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))
