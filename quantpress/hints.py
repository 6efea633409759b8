"""Hints for a word that is not among the valid words."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, valid: Iterable[str], cutoff: float = 0.5) -> str | None:
    """Returns the valid word that ``word`` most likely means: one that begins with it, else the most similar one.

    Words are similar if difflib's ratio is at least ``cutoff``. Upper and lower case count as equal. None if no word is
    similar.
    """
    words = list(valid)
    by_lower = {each.lower(): each for each in reversed(words)}
    begun = [each for each in words if word and each.lower().startswith(word.lower())]
    matches = begun or [by_lower[each] for each in get_close_matches(word.lower(), by_lower, n=1, cutoff=cutoff)]
    return matches[0] if matches else None


def hint(word: str, valid: Iterable[str]) -> str:
    """Returns ``did you mean 'X'?``, or the list of valid words if none is similar."""
    words = list(valid)
    found = nearest(word, words)
    return f"did you mean {found!r}?" if found else f"use one of {', '.join(words)}"
