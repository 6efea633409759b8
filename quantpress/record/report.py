"""What a run did: repositories published, variants with their figures, and failures."""

from __future__ import annotations

from quantpress.record.base import Record
from quantpress.record.manifest import Entry


class VariantReport(Record):
    """A variant that was made: size in bytes, figures, and whether it was published."""

    model: str
    repo_id: str
    variant: str
    branch: str
    status: str
    size: int
    bits_per_weight: float
    perplexity: float
    perplexity_error: float
    divergence: float | None
    seconds: float


class ModelReport(Record):
    """What became of one model. ``committed`` names what was committed in addition to the variants that were made.
    ``failures`` are errors of stages; an empty list means that all went well."""

    model: str
    variants: list[VariantReport] = []
    committed: list[str] = []
    failures: list[str] = []


def report_entry(model: str, repo_id: str, entry: Entry) -> VariantReport:
    """Returns the row of one manifest entry."""
    divergence = entry.evaluation.divergence
    return VariantReport(
        model=model,
        repo_id=repo_id,
        variant=entry.variant,
        branch=entry.branch,
        status=entry.status,
        size=entry.artifact.size,
        bits_per_weight=entry.artifact.bits_per_weight,
        perplexity=entry.evaluation.perplexity,
        perplexity_error=entry.evaluation.perplexity_error,
        divergence=divergence.mean if divergence else None,
        seconds=entry.seconds,
    )
