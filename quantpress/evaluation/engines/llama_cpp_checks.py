"""Checks what llama-perplexity measures with: the length of the text, the base and the token ids.

The base is the file of the unquantized model's log-probabilities. If one of these inputs is wrong, the tool's figures
mean nothing.
"""

from __future__ import annotations

import numpy as np

from quantpress.errors import BadInput
from quantpress.evaluation.logits import LogitsHeader, Tokens, scored_positions

#: For fewer scored positions, llama-perplexity prints no divergence statistics.
_FEWEST_VALUES = 100


def check_tokens(tokens: int, n_ctx: int, windows: int) -> None:
    """Raises :class:`BadInput` if the text has too few tokens for ``windows``, or for the tool's minimum of two."""
    wanted = max(windows, 2)
    if tokens < wanted * n_ctx:
        remedy = f"ask for {tokens // n_ctx} windows" if tokens >= 2 * n_ctx else "give a longer text"
        raise BadInput(
            f"the evaluation text has {tokens} tokens, and {wanted} windows of {n_ctx} need {wanted * n_ctx}: {remedy}"
        )


def check_base(header: LogitsHeader, n_ctx: int, windows: int) -> None:
    """Raises :class:`BadInput` if the base was made with other windows, or has too few positions for statistics."""
    if (header.n_ctx, header.windows) != (n_ctx, windows):
        raise BadInput(
            f"the base file has {header.windows} windows of {header.n_ctx} tokens, the protocol {windows} of {n_ctx}: "
            "measure the unquantized model again"
        )
    if windows * scored_positions(n_ctx) < _FEWEST_VALUES:
        raise BadInput(
            f"{windows} windows of {n_ctx} tokens score {windows * scored_positions(n_ctx)} positions, and divergence "
            f"needs {_FEWEST_VALUES}: ask for more windows"
        )


def check_own_tokens(own: Tokens, base: LogitsHeader, name: str) -> None:
    """Raises :class:`BadInput` if the model's own tokenizer gives other token ids than the base holds.

    llama-perplexity does not notice this. When it measures a model against a base, it reads the token ids from the
    base's file and never runs the model's tokenizer. ``own`` is int32 ``[windows, n_ctx]``.
    """
    different = np.flatnonzero((own != base.tokens).any(axis=1)) if own.shape == base.tokens.shape else [0]
    if len(different):
        raise BadInput(
            f"{name}: its tokenizer gives other token ids than the unquantized model's, first in window "
            f"{different[0] + 1} of {base.windows}: the tokenizer is from another model, or the conversion is wrong"
        )
