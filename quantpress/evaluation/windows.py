"""How many windows a model is measured on: as many as log-probabilities have room for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantpress.source.config import values_of
from quantpress.source.source import Source

#: Tokens of the largest vocabulary in use (Gemma 3's), taken where a config.json does not say.
_LARGEST_VOCABULARY = 262_144


def logits_bytes(source: Source, windows: int) -> int:
    """Bytes of an engine's log-probabilities: 16 bits per scored position and token of the vocabulary."""
    return windows * 255 * 2 * vocabulary(source.config)


def windows_within(source: Source, windows: int, budget: int) -> int:
    """As many of ``windows`` as log-probabilities of ``budget`` bytes have room for; two at least, which
    llama-perplexity asks for."""
    return windows_of_vocabulary(vocabulary(source.config), windows, budget)


def windows_of_vocabulary(tokens: int, windows: int, budget: int) -> int:
    """:func:`windows_within` for a model of which only the size of its vocabulary is known."""
    return min(windows, max(2, budget // (255 * 2 * tokens)))


def vocabulary(config: Mapping[str, Any]) -> int:
    """Tokens of the vocabulary; a multimodal model's config has them in its text part, or in several parts.

    Where none says, the largest in use: too few windows make a figure less certain, too many fill the disk.
    """
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        if isinstance(size := part.get("vocab_size"), int):
            return size
    nested = [size for size in values_of(config, "vocab_size") if isinstance(size, int)]
    return max(nested, default=_LARGEST_VOCABULARY)
