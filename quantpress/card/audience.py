"""Says whom each variant is for, in one sentence per variant. A sentence compares the variant's figures with those of
the other variants."""

from __future__ import annotations

from quantpress.card.figures import DIVERGENCE_STEPS, PERPLEXITY_STEPS, same_top_text, size_text
from quantpress.evaluation.frontier import Comparison, dominating, frontier, mean_divergence, worse_with_more_bits
from quantpress.record.manifest import Entry

#: One text for each limit in ``DIVERGENCE_STEPS`` (or ``PERPLEXITY_STEPS``), and one for a loss above the last limit.
_LOSSES = (
    "to keep the unquantized model's answers in less memory",
    "for everyday use, at a small loss",
    "where memory is short, at a loss that shows",
    "to try the model where nothing larger fits, at a large loss",
)


def audiences(comparison: Comparison, source_bytes: int | None) -> list[tuple[str, str]]:
    """Returns pairs of variant and sentence, largest variant first.

    Returns an empty list for a single variant, because there is no choice. ``source_bytes`` is the size of the
    unquantized weights, if known.
    """
    if len(comparison.entries) < 2:
        return []
    worth = frontier(comparison.entries, comparison.distance)
    return [
        (entry.variant, _instead_of(entry, comparison) or _for_whom(entry, worth, comparison, source_bytes))
        for entry in comparison.entries
    ]


def _instead_of(entry: Entry, comparison: Comparison) -> str | None:
    """Says which variant to take instead of ``entry``. Returns None if no other variant dominates ``entry``.

    A variant that dominates is no larger and no farther from the unquantized model, and better in one of the two.
    """
    other = dominating(entry, comparison.entries, comparison.distance)
    if other is None:
        return None
    less = entry.artifact.size - other.artifact.size
    saved = f"{_share(less, entry.artifact.size)} smaller" if less else "as large"
    if not comparison.has_divergence:
        return f"only where {other.variant} does not run: that is {saved}, at no higher perplexity"
    if worse_with_more_bits(entry, comparison.entries) is not None:
        return (
            f"only where {other.variant} does not run: that is {saved} and diverges less, "
            f"{mean_divergence(other):.4f} against {mean_divergence(entry):.4f}"
        )
    return f"only where {other.variant} does not run: that is {saved} and measures as close or closer"


def _for_whom(entry: Entry, worth: list[Entry], comparison: Comparison, source_bytes: int | None) -> str:
    """Says what the variant's loss allows, gives loss and size, and compares both with the next larger variant."""
    facts = []
    if comparison.has_divergence:
        facts.append(f"it agrees with the unquantized model on {same_top_text(entry.evaluation)} of the next tokens")
    elif comparison.reference is not None:
        facts.append(f"perplexity {entry.evaluation.perplexity / comparison.reference.perplexity - 1:+.1%}")
    if source_bytes and source_bytes > entry.artifact.size:
        facts.append(f"at {_share(entry.artifact.size, source_bytes)} of its size")
    step = " ".join(facts) or size_text(entry.artifact.size)
    return f"{_LOSSES[_step(entry, comparison)]}: {step}{_beside_larger(entry, worth, comparison)}"


def _step(entry: Entry, comparison: Comparison) -> int:
    """Counts the limits (``DIVERGENCE_STEPS`` or ``PERPLEXITY_STEPS``) that the variant's loss exceeds."""
    if comparison.has_divergence:
        return sum(mean_divergence(entry) > step for step in DIVERGENCE_STEPS)
    if comparison.reference is None:
        return 0
    rise = entry.evaluation.perplexity / comparison.reference.perplexity - 1
    return sum(rise > step for step in PERPLEXITY_STEPS)


def _beside_larger(entry: Entry, worth: list[Entry], comparison: Comparison) -> str:
    """Says what the variant saves and loses compared with the next larger variant in ``worth``, the frontier."""
    position = worth.index(entry)
    if not comparison.has_divergence or position + 1 == len(worth):
        return ""
    larger = worth[position + 1]
    saved = _share(larger.artifact.size - entry.artifact.size, larger.artifact.size)
    if mean_divergence(larger) <= 0:
        return f"; {saved} smaller than {larger.variant}"
    times = mean_divergence(entry) / mean_divergence(larger)
    return f"; {saved} smaller than {larger.variant}, with {times:.1f} times its divergence"


def _share(part: int, whole: int) -> str:
    percent = part / whole * 100
    return f"{percent:.0f}\u00a0%" if percent >= 1 else f"{percent:.1f}\u00a0%"
