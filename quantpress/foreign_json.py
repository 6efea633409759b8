"""Reads JSON that a stranger wrote: a model's configuration, its tokenizer's files, a manifest.

A reader first calls :func:`parse_object`, which limits size and depth. Then it validates the object with a
:class:`Foreign` model, which limits types and ranges. Both raise :class:`Refused`, with the reason in one line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from quantpress.errors import Refused
from quantpress.text import one_line

#: The largest size of a JSON file, in bytes. Among the files that a plan reads, the largest published one is Gemma 3's
#: tokenizer_config.json, with 1.2 MB.
LARGEST = 10_000_000
#: How deep lists and mappings may be nested. transformers' own configurations and the tokenizer.json files of the
#: tokenizers library have at most 10 levels. Python's recursive functions fail at about 1,000.
DEEPEST = 64
#: Matches half of a character (a surrogate). JSON's escapes can write a half, but UTF-8 cannot.
_HALF = re.compile("[\ud800-\udfff]")

Model = TypeVar("Model", bound="Foreign")


class Foreign(BaseModel):
    """The part of a foreign JSON object that quantpress reads. Other keys are ignored. A number in quotes is a text,
    and no number."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


def read_object(path: Path, largest: int = LARGEST) -> dict[str, Any]:
    """Reads a file that must hold a JSON object. Raises :class:`Refused`, with the file's name, as
    :func:`parse_object` does, or if the file has more than ``largest`` bytes."""
    if path.stat().st_size > largest:
        raise Refused(f"its {path.name} is larger than {largest} bytes")
    return parse_object(path.read_bytes(), path.name)


def parse_object(content: bytes, name: str) -> dict[str, Any]:
    """Returns the JSON object in ``content``. ``name`` names the file in errors.

    Raises :class:`Refused` if ``content`` is not JSON in UTF-8, is not an object, or is nested too deep. Also raises it
    if a text has half of a character, because such a text cannot be written to a file.
    """
    try:
        found = json.loads(content.decode())
    except RecursionError:
        raise Refused(_too_deep(name)) from None
    except ValueError:
        raise Refused(f"its {name} is not JSON") from None
    if not isinstance(found, dict):
        raise Refused(f"its {name} is not a JSON object")
    if problem := problem_of(found):
        raise Refused(f"its {name} {problem}: ask upstream to mend it")
    return found


def problem_of(value: object, deepest: int = DEEPEST, largest_number: int | None = None) -> str | None:
    """Returns why a value that was read from JSON is refused, or None: it is nested too deep, or a text in it has half
    of a character. Or a whole number is larger than ``largest_number``, if that is given. Does not recurse."""
    level = [value]
    for _ in range(deepest + 1):
        inner: list[object] = []
        for each in level:
            match each:
                case dict():
                    inner += each.keys()
                    inner += each.values()
                case list():
                    inner += each
                case str() if _HALF.search(each):
                    return "has a text that is not UTF-8"
                case int() if largest_number is not None and abs(each) > largest_number:
                    return f"has a number beyond {largest_number}"
        if not inner:
            return None
        level = inner
    return _deep(deepest)


def validated(model: type[Model], content: Mapping[str, Any], name: str) -> Model:
    """Returns the typed part of ``content``. Raises :class:`Refused`, with the first wrong key, if a value has a wrong
    type or is out of range. ``name`` names the file."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise Refused(f"its {name} has a wrong {one_line(place)} ({first['msg']}): ask upstream to mend it") from None


def _deep(deepest: int) -> str:
    return f"is nested more than {deepest} levels deep"


def _too_deep(name: str) -> str:
    return f"its {name} {_deep(DEEPEST)}: ask upstream to mend it"
