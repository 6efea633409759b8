"""The notes on a variant, in the last column of a card's table."""

from __future__ import annotations

from collections.abc import Sequence

from quantpress.evaluation.frontier import Comparison, dominating, worse_text, worse_with_more_bits
from quantpress.record.manifest import SOURCE_WEIGHTS, Entry


def notes_of(entry: Entry, comparison: Comparison, stored: Sequence[str]) -> list[str]:
    """Returns the notes on a variant. ``stored`` names the types that hold many weights although the variant's name
    says another type."""
    notes = []
    evaluation = entry.evaluation
    if stored:
        notes.append(f"stored as {', '.join(stored)}")
    if weights := entry.artifact.details.get(SOURCE_WEIGHTS):
        notes.append(f"made from {weights}")
    if comparison.protocol not in (None, evaluation.protocol):
        protocol = evaluation.protocol
        notes.append(f"measured on {protocol.windows} windows of {protocol.text}: not comparable with the others")
    elif entry in comparison.entries:
        worse_than = worse_with_more_bits(entry, comparison.entries)
        other = dominating(entry, comparison.entries, comparison.distance)
        if worse_than is not None:
            notes.append(worse_text(worse_than))
        elif other is not None:
            closer = comparison.distance(other) < comparison.distance(entry)
            notes.append(
                f"{other.variant} is no larger and measures closer"
                if closer
                else f"{other.variant} is smaller and measures as close"
            )
    if reason := entry.artifact.details.get("by_llama_quantize"):
        notes.append(f"made by llama-quantize by itself: {reason}")
    if evaluation.non_finite:
        notes.append(f"{evaluation.non_finite} of {evaluation.scored_tokens} positions gave no finite number")
    return notes
