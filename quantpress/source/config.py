"""Reads values from a model's config.json.

A key is at the top level of the file, or in an inner mapping that describes a part of the model (such as the language
model of a larger model).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def values_of(config: Mapping[str, Any], key: str) -> Iterator[Any]:
    """Yields the values of ``key`` in ``config`` and in all mappings inside ``config``, outermost first."""
    inner = [config]
    while inner:
        part = inner.pop(0)
        if key in part:
            yield part[key]
        inner += [value for value in part.values() if isinstance(value, Mapping)]
