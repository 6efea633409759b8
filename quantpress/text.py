"""Cleans text from strangers: on one line or in lines, without characters that hide or reorder text."""

from __future__ import annotations

import re

#: Longer texts are cut. No identifier of the Hub is longer: repo ids have at most 96 characters, file names 255.
_LONGEST = 300
#: Spaces, control characters, line and paragraph separators. Each run becomes one space.
_CONTROL = re.compile("[\x00-\x20\x7f-\x9f\u2028\u2029]+")
#: Characters that reorder or hide the text around them (Unicode bidirectional controls, zero-width, BOM), and
#: lone surrogates, which JSON can carry but UTF-8 cannot.
_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
#: Control characters to remove within a fenced block. Line breaks and tabs stay.
_CONTROL_IN_BLOCK = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029]")


def one_line(text: str) -> str:
    """Returns the text on one line, without control and invisible characters, cut to 300 characters."""
    flat = _CONTROL.sub(" ", _INVISIBLE.sub("", text)).strip()
    return flat if len(flat) <= _LONGEST else flat[: _LONGEST - 1] + "…"


def plain_lines(text: str) -> str:
    """Returns the text in lines that end with ``\\n``, without invisible characters and (except tabs) control
    characters."""
    return _CONTROL_IN_BLOCK.sub("", _INVISIBLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))
