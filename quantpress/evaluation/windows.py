"""Computes on how many windows of text a model is measured, given the room for the windows' log-probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantpress.source.config import is_count, model_config, values_of
from quantpress.source.source import Source

#: The number of tokens in the largest vocabulary in use (Gemma 3's). If a config.json does not say its own number, this
#: number is assumed.
_LARGEST_VOCABULARY = 262_144


def logits_bytes(source: Source, windows: int) -> int:
    """Returns the size of a model's log-probabilities in bytes.

    For each of a window's 255 scored positions, every token of the vocabulary takes 16 bits.
    """
    return windows * 255 * 2 * vocabulary(source.config)


def windows_within(source: Source, windows: int, budget: int) -> int:
    """Returns ``windows``, or fewer if the log-probabilities of so many windows take more than ``budget`` bytes.

    A small budget never makes the result less than two, because llama-perplexity needs two windows.
    """
    return windows_of_vocabulary(vocabulary(source.config), windows, budget)


def windows_of_vocabulary(tokens: int, windows: int, budget: int) -> int:
    """Returns the same as :func:`windows_within`, for a vocabulary of ``tokens`` tokens instead of a source."""
    return min(windows, max(2, budget // (255 * 2 * tokens)))


def vocabulary(config: Mapping[str, Any]) -> int:
    """Returns the number of tokens in the vocabulary.

    The config of a multimodal model has this number in its text part or in other parts. If other parts have it, the
    largest number counts. If no part has the number, the largest vocabulary in use is assumed. This can give too few
    windows, which only make a figure less certain. Too many windows would fill the disk. Raises
    :class:`~quantpress.errors.Refused` if a value in ``config`` has a wrong type or is out of range.
    """
    for part in model_config(config).parts:
        if part.vocab_size is not None:
            return part.vocab_size
    nested = [size for size in values_of(config, "vocab_size") if is_count(size) and size > 0]
    return max(nested, default=_LARGEST_VOCABULARY)
