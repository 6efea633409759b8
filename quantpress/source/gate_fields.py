"""Reads the terms of a gated source from its card's metadata. A gated repo opens only to users who accept its terms.

The repos that quantpress makes from the source are gated with the same words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from quantpress.text import one_line, plain_lines

_KEY = re.compile(r"extra_gated_[a-z_]{1,40}")
#: Characters of a text. Some prompts contain a whole licence: Llama's have some 35,000 characters.
_LONGEST_TEXT = 100_000
_LONGEST_LIST = 100
#: How deep a value can be nested. A field maps its label to a type and options:
#: https://huggingface.co/docs/hub/models-gated.
_DEEPEST = 3


def gate_fields(card: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a dict from name to value of the ``extra_gated_…`` fields in a card's metadata. The values have plain
    types and no control characters.

    A value that is too deep, too long or of another type is left out, because no field of this kind can have it.
    """
    fields = {key: _plain(value, _DEEPEST) for key, value in card.items() if _KEY.fullmatch(str(key))}
    return {key: value for key, value in fields.items() if value is not None}


def _plain(value: object, depth: int) -> Any:
    match value:
        case bool() | int():
            return value
        case str():
            return plain_lines(value) if len(value) <= _LONGEST_TEXT else None
        case list() if depth and len(value) <= _LONGEST_LIST:
            return [kept for item in value if (kept := _plain(item, depth - 1)) is not None]
        case dict() if depth and len(value) <= _LONGEST_LIST:
            plain = {one_line(str(key)): _plain(item, depth - 1) for key, item in value.items()}
            return {key: item for key, item in plain.items() if item is not None}
    return None
