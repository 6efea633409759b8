"""Hints for an error message about a word that is not valid."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, valid: Iterable[str], cutoff: float = 0.5) -> str | None:
    """Returns the valid word that ``word`` most likely means. Upper and lower case count as equal.

    This is the first valid word that begins with ``word``, else the most similar valid word. Two words are similar if
    difflib's ratio is at least ``cutoff``. Returns None if no valid word is similar.
    """
    words = list(valid)
    by_lower = {each.lower(): each for each in reversed(words)}
    begun = [each for each in words if word and each.lower().startswith(word.lower())]
    matches = begun or [by_lower[each] for each in get_close_matches(word.lower(), by_lower, n=1, cutoff=cutoff)]
    return matches[0] if matches else None


def hint(word: str, valid: Iterable[str]) -> str:
    """Returns ``did you mean 'X'?``, or ``use one of`` and all valid words if none is similar to ``word``."""
    words = list(valid)
    found = nearest(word, words)
    return f"did you mean {found!r}?" if found else f"use one of {', '.join(words)}"
