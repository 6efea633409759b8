"""JSON as a stranger could write it, drawn by hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

#: A value of JSON without lists and mappings. It includes numbers that JSON can write and no reader expects.
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 80), 1 << 80),
    st.sampled_from([0, 1, -1, 64, 1 << 31, 1 << 63, 10**30]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["64", "main", "\x1b[2J", "a/../b", "\u202e"]),
)
#: Any value of JSON.
JSON: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)


def objects(*keys: str, parts: tuple[str, ...] = ()) -> st.SearchStrategy[dict[str, Any]]:
    """Draws objects with some of ``keys``. The values of ``parts`` are often such objects themselves."""
    flat = st.dictionaries(st.one_of(st.sampled_from(keys), st.text(max_size=8)), JSON, max_size=8)
    if not parts:
        return flat
    inner = st.dictionaries(st.sampled_from(parts), st.one_of(flat, JSON), max_size=len(parts))
    return st.builds(lambda part, whole: {**whole, **part}, inner, flat)
