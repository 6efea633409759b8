"""Puts a card's figures into words: the rows of the card's tables, and the advice that follows from the figures."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quantpress.card.notes import notes_of
from quantpress.evaluation.frontier import Comparison, frontier
from quantpress.record.manifest import Entry
from quantpress.record.measurement import Evaluation

#: The text for a missing figure.
MISSING = "\N{EN DASH}"

#: Limits ("steps") of the mean divergence, in nats per token. The card names the smallest variant within each limit.
#: For comparison: Llama-3-8B has 0.0055 as Q6_K and 0.031 as Q4_K_M (llama.cpp, tools/quantize/README.md).
DIVERGENCE_STEPS = (0.01, 0.05, 0.2)
#: Limits of the perplexity: 0.01 is 1 % above the unquantized model. Used if the divergence of a variant is missing.
PERPLEXITY_STEPS = (0.01, 0.03, 0.1)
#: The index of the middle limit. The card's commands usually use the smallest variant within this limit
#: (see :func:`everyday`).
_EVERYDAY_STEP = 1

#: llama.cpp uses these types in place of K- and IQ-types for a tensor whose width is not divisible by 256
#: (``tensor_type_fallback`` in llama-quant.cpp).
_FALLBACK_TYPES = ("Q4_0", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL")
#: Matches variants of K- and IQ-types, which have blocks of 256 weights. Leaves out IQ4_NL, which has blocks of 32.
_BLOCKS_OF_256 = re.compile(r"(T?Q\d_K|IQ(?!4_NL)\d)")
#: The card mentions fallback types only if these types together hold at least this share of the weights. A smaller
#: share is often no fallback, because some rungs store single tensors as Q8_0 on purpose.
_FALLBACKS_FROM = 0.05


@dataclass(frozen=True)
class Row:
    """A table's row for one variant, with every figure as text."""

    variant: str
    branch: str
    file: str
    parts: int
    bits: str
    size: str
    perplexity: str
    divergence: str
    same_top: str
    types: str
    notes: list[str]


@dataclass(frozen=True)
class Fallback:
    """A variant that stores many weights in other types than the variant's name says.

    ``types`` names each of these other types, with the type's share of all weights.
    """

    variant: str
    bits: str
    types: list[str]


@dataclass(frozen=True)
class Advice:
    """A variant worth taking. ``reasons`` says why. Every reason follows from the figures."""

    entry: Entry
    reasons: list[str]


def size_text(size: int) -> str:
    """Returns the size in decimal units with three digits, as the Hub lists sizes."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= scale * 0.9995:
            return f"{_three_digits(size / scale)}\u00a0{unit}"
    return f"{_three_digits(size / 1e3)}\u00a0kB"


def perplexity_text(evaluation: Evaluation) -> str:
    """Returns the perplexity and the standard error of the perplexity, both to two decimals."""
    if not math.isfinite(evaluation.perplexity):
        return MISSING
    return f"{evaluation.perplexity:.2f}\u00a0±\u00a0{evaluation.perplexity_error:.2f}"


def divergence_text(evaluation: Evaluation) -> str:
    """Returns the mean divergence to four decimals."""
    divergence = evaluation.divergence
    return f"{divergence.mean:.4f}" if divergence and math.isfinite(divergence.mean) else MISSING


def share_text(share: float) -> str:
    """Returns a share between 0 and 1 as a percentage, to one decimal."""
    return f"{share * 100:.1f}\u00a0%" if math.isfinite(share) else MISSING


def detail_rows(entries: Sequence[Entry], comparison: Comparison) -> list[list[str]]:
    """Returns one row per variant: the distribution of the variant's divergence.

    The cells are: variant, mean and error, median, 99 % and 99.9 % quantile, maximum, same top token and error. Leaves
    out variants that were measured under another protocol or have no divergence.
    """
    found = []
    for entry in entries:
        divergence = entry.evaluation.divergence
        if divergence is None or comparison.protocol not in (None, entry.evaluation.protocol):
            continue
        figures = [divergence.median, divergence.p99, divergence.p999, divergence.maximum]
        found.append(
            [
                entry.variant,
                f"{divergence.mean:.4f}\u00a0±\u00a0{divergence.mean_error:.4f}",
                *(f"{figure:.4f}" for figure in figures),
                f"{divergence.same_top * 100:.1f}\u00a0±\u00a0{divergence.same_top_error * 100:.1f}\u00a0%",
            ]
        )
    return found


def same_top_text(evaluation: Evaluation) -> str:
    return share_text(evaluation.divergence.same_top) if evaluation.divergence else MISSING


def rows(entries: Sequence[Entry], comparison: Comparison) -> list[Row]:
    """Returns one row per entry, in the same order. Shows no figures that were measured under another protocol."""
    return [_row(entry, comparison) for entry in entries]


def _row(entry: Entry, comparison: Comparison) -> Row:
    evaluation = entry.evaluation
    comparable = comparison.protocol in (None, evaluation.protocol)
    return Row(
        variant=entry.variant,
        branch=entry.branch,
        file=entry.artifact.files[0].path,
        parts=len(entry.artifact.files),
        bits=f"{entry.artifact.bits_per_weight:.2f}",
        size=size_text(entry.artifact.size),
        perplexity=perplexity_text(evaluation) if comparable else MISSING,
        divergence=divergence_text(evaluation) if comparable else MISSING,
        same_top=same_top_text(evaluation) if comparable else MISSING,
        types=_types_text(entry),
        notes=notes_of(entry, comparison, found.types if (found := fallback(entry)) else []),
    )


def _types_text(entry: Entry) -> str:
    """Names the storage types of the weights, largest share first. Leaves out shares below half a percent."""
    total = sum(entry.artifact.tensor_types.values())
    shares = sorted(entry.artifact.tensor_types.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{name} {count / total * 100:.0f}\u00a0%" for name, count in shares if total and count / total >= 0.005]
    return ", ".join(named) or MISSING


def fallback(entry: Entry) -> Fallback | None:
    """Returns the fallbacks of a GGUF rung (a variant such as Q4_K_M): types that replace the type in the rung's name.

    llama.cpp uses fallbacks for tensors whose width is not divisible by 256. Types that the recipe names (for example
    for the embeddings) do not count. Returns None if the rung's name is not a K- or IQ-type, if the fallbacks hold too
    few weights, or if llama-quantize reported that no tensor fell back.
    """
    none_fell_back = entry.artifact.details.get("fallbacks") == 0
    if none_fell_back or not _BLOCKS_OF_256.match(entry.variant):
        return None
    asked_for = {str(value).upper() for said in entry.recipe.parameters.values() for value in _each(said)}
    types = entry.artifact.tensor_types
    found = [name for name in _FALLBACK_TYPES if types.get(name) and name not in asked_for]
    total = sum(types.values())
    if sum(types[name] for name in found) < _FALLBACKS_FROM * total:
        return None
    found.sort(key=lambda name: -types[name])
    named = [f"{name} {_share(types[name] / total)}" for name in found]
    return Fallback(entry.variant, f"{entry.artifact.bits_per_weight:.2f}", named)


def _each(said: Any) -> list[Any]:
    """Returns the values of a recipe's parameter as a list. A parameter holds one value, or a list such as a rung's
    options."""
    return said if isinstance(said, list) else [said]


def _share(share: float) -> str:
    return f"{share * 100:.0f}\u00a0%" if share >= 0.005 else "under 1\u00a0%"


def advice(comparison: Comparison) -> list[Advice]:
    """Returns the variants worth taking, each with its reasons, largest first. All are on the efficient frontier.

    The frontier holds the variants that no other variant dominates. A variant dominates another if it is no
    larger and no farther from the unquantized model, and is better in at least one of these. Returns an empty list for
    fewer than two variants.
    """
    worth = frontier(comparison.entries, comparison.distance)
    if len(comparison.entries) < 2:
        return []
    reasons: dict[str, list[str]] = {}
    for entry, reason in [
        (min(worth, key=comparison.distance), "closest to the unquantized model"),
        *((entry, f"smallest within {limit}") for limit, entry in _smallest_within(comparison, worth)),
        (worth[0], "smallest of all"),
    ]:
        reasons.setdefault(entry.variant, []).append(reason)
    return [Advice(entry, reasons[entry.variant]) for entry in reversed(worth) if entry.variant in reasons]


def everyday(comparison: Comparison) -> Entry | None:
    """Returns the variant that the card's commands use.

    Returns the first of these that exists:

    - the variant on ``main``, if it is the only one there and is on the frontier: clients load it by default
    - the smallest variant within the middle limit, or else within the last limit
    - the variant closest to the unquantized model
    - the first variant whose figures cannot be compared
    - None, if nothing is published
    """
    worth = frontier(comparison.entries, comparison.distance)
    on_main = [entry for entry in worth if entry.branch == "main"]
    if len(on_main) == 1:
        return on_main[0]
    for _, limit in _limits(comparison)[_EVERYDAY_STEP:]:
        for entry in worth:
            if comparison.distance(entry) <= limit:
                return entry
    if worth:
        return min(worth, key=comparison.distance)
    return comparison.others[0] if comparison.others else None


def _limits(comparison: Comparison) -> list[tuple[str, float]]:
    """Returns each step as a pair: a text for the card, and the limit that ``comparison.distance`` must not exceed."""
    if comparison.has_divergence:
        return [(f"a mean KLD of {step:g}", step) for step in DIVERGENCE_STEPS]
    if comparison.reference is None:
        return []
    return [
        (f"{step:.0%} of the unquantized model's perplexity", comparison.reference.perplexity * (1 + step))
        for step in PERPLEXITY_STEPS
    ]


def _smallest_within(comparison: Comparison, worth: Sequence[Entry]) -> list[tuple[str, Entry]]:
    """Returns pairs of a limit in words and the smallest variant within that limit.

    If a variant is the smallest within several limits, only the tightest limit is listed. ``worth`` must be sorted by
    size, smallest first.
    """
    found: dict[str, tuple[str, Entry]] = {}
    for words, limit in _limits(comparison):
        within = [entry for entry in worth if comparison.distance(entry) <= limit]
        if within:
            found.setdefault(within[0].variant, (words, within[0]))
    return list(found.values())


def figures_text(entry: Entry) -> str:
    """Returns one variant's figures as a sentence without its full stop."""
    evaluation = entry.evaluation
    if evaluation.divergence is None:
        return f"Perplexity {evaluation.perplexity:.2f}"
    return (
        f"Mean KLD {divergence_text(evaluation)}, the unquantized model's most likely token at "
        f"{same_top_text(evaluation)} of the positions"
    )


def _three_digits(value: float) -> str:
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{decimals}f}"
