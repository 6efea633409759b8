"""Reads the YAML of a card's front matter, which anybody can write, within fixed bounds of time and memory.

Aliases and merge keys are refused, because with them a few lines stand for billions of values
(https://en.wikipedia.org/wiki/Billion_laughs_attack). No feature of a card needs them, and no type tags either.
"""

from __future__ import annotations

import json
import math
from datetime import date, datetime
from typing import Any

import yaml

# A card with the results of 100 benchmarks has some 100 kB and 8,000 nodes (keys, values, lists and mappings).
# Measured here: libyaml reads 150 kB with 25,000 nodes in 0.6 s.
MAX_CHARACTERS = 512 * 1024
_MAX_NODES = 40_000
_MAX_DEPTH = 32
# A number in base 60 (``1:30:00``) of n digits takes PyYAML about n² steps.
_MAX_DIGITS = 100

#: libyaml where PyYAML has it, as its wheels do. It is about 10 times as fast.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class CardInvalid(ValueError):
    """The front matter is not valid metadata for the Hub."""


class _Loader(_Base):  # type: ignore[misc]  # the class is chosen at run time
    """Reads YAML into plain values, without long numbers."""

    def _number(self, node: yaml.ScalarNode) -> int | float:
        if len(node.value) > _MAX_DIGITS:
            raise CardInvalid(f"the metadata holds a number of more than {_MAX_DIGITS} digits")
        value: int | float = (
            self.construct_yaml_int(node) if node.tag.endswith(":int") else self.construct_yaml_float(node)
        )
        return value


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader._number)


def load(text: str) -> Any:
    """Returns the values of YAML as JSON types. Raises CardInvalid, with one line, for what the Hub does not take."""
    if len(text) > MAX_CHARACTERS:
        raise CardInvalid(f"the metadata has more than {MAX_CHARACTERS} characters")
    try:
        _check_events(text)
        data = _plain(yaml.load(text, _Loader))  # a subclass of a safe loader
        json.dumps(data, ensure_ascii=False).encode()  # fails for half of a surrogate pair, as an answer would
    except CardInvalid:
        raise
    except (yaml.YAMLError, ValueError) as error:
        raise CardInvalid(" ".join(str(error).split())) from error
    return data


def _check_events(text: str) -> None:
    """Raises CardInvalid for YAML that could cost much more than it is long, before any value is built."""
    depth = nodes = 0
    for event in yaml.parse(text, _Base):
        match event:
            case yaml.AliasEvent():
                raise CardInvalid(f"the metadata holds an alias (*{(event.anchor or '')[:40]}): write the value out")
            case yaml.ScalarEvent(value="<<", implicit=(True, _)):
                raise CardInvalid("the metadata holds a merge key (<<): write the values out")
            case yaml.CollectionEndEvent():
                depth -= 1
                continue
            case yaml.ScalarEvent() | yaml.CollectionStartEvent():
                nodes += 1
            case _:
                continue
        if event.tag is not None:
            raise CardInvalid(f"the metadata holds a type tag ({event.tag[:40]}): leave it out")
        depth += isinstance(event, yaml.CollectionStartEvent)
        if depth > _MAX_DEPTH or nodes > _MAX_NODES:
            raise CardInvalid(f"the metadata has more than {_MAX_NODES} values, or more than {_MAX_DEPTH} levels")


def _plain(value: object) -> Any:
    """Converts a value to JSON types, nested values too."""
    match value:
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case datetime() | date():
            return value.isoformat()
        case float() if not math.isfinite(value):
            return str(value)
        case None | bool() | int() | float() | str():
            return value
    return str(value)
