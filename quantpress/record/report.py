"""The report of a run: what was published, the figures of each variant, and the failures."""

from __future__ import annotations

from quantpress.record.base import Record
from quantpress.record.manifest import Entry


class VariantReport(Record):
    """A variant that a run made. ``size`` is in bytes. ``status`` says whether the variant was published. If the gate
    withheld it, ``reasons`` says why."""

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
    reasons: list[str] = []

    @property
    def withheld(self) -> str | None:
        """One line that says why the variant was withheld, or None if it was not."""
        return f"{self.variant}: withheld: {'; '.join(self.reasons)}" if self.status == "withheld" else None


class ModelReport(Record):
    """The result of a run for one model.

    ``committed`` names what the run committed in addition to the variants that it made. ``failures`` are the errors of
    stages. If ``failures`` is empty, all went well.
    """

    model: str
    variants: list[VariantReport] = []
    committed: list[str] = []
    failures: list[str] = []


def report_entry(model: str, repo_id: str, entry: Entry) -> VariantReport:
    """Returns the report of one manifest entry."""
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
        reasons=entry.verdict.reasons,
    )
