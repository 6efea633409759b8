"""How many windows a model is measured on: as many as log-probabilities have room for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantpress.source.config import values_of
from quantpress.source.source import Source

#: Tokens of the largest vocabulary in use (Gemma 3's). It is assumed if a config.json does not say.
_LARGEST_VOCABULARY = 262_144


def logits_bytes(source: Source, windows: int) -> int:
    """Returns the bytes of an engine's log-probabilities: 16 bits per scored position and token of the vocabulary."""
    return windows * 255 * 2 * vocabulary(source.config)


def windows_within(source: Source, windows: int, budget: int) -> int:
    """Returns ``windows``, or fewer if their log-probabilities would take more than ``budget`` bytes.

    The budget never reduces them below two, because llama-perplexity needs two.
    """
    return windows_of_vocabulary(vocabulary(source.config), windows, budget)


def windows_of_vocabulary(tokens: int, windows: int, budget: int) -> int:
    """Returns what :func:`windows_within` does, for a vocabulary of ``tokens`` tokens."""
    return min(windows, max(2, budget // (255 * 2 * tokens)))


def vocabulary(config: Mapping[str, Any]) -> int:
    """Returns the number of tokens in the vocabulary.

    A multimodal model's config has it in its text part, or in several parts. If no part says, the largest vocabulary
    in use is assumed: too few windows make a figure less certain, too many fill the disk.
    """
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        if isinstance(size := part.get("vocab_size"), int):
            return size
    nested = [size for size in values_of(config, "vocab_size") if isinstance(size, int)]
    return max(nested, default=_LARGEST_VOCABULARY)
