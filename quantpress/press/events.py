"""The events that a press reports while it works. Its caller collects, logs and shows them."""

from __future__ import annotations

from dataclasses import dataclass

from quantpress.plan.steps import VariantPlan
from quantpress.press.stages import Made
from quantpress.record.manifest import Entry
from quantpress.record.report import VariantReport


@dataclass(frozen=True)
class Failed:
    """What was not made, measured, published or found sound, and why. ``variant`` is empty if this is no variant."""

    subject: str
    reason: str
    variant: str = ""

    @property
    def line(self) -> str:
        return f"{self.subject}: {self.reason}" if self.subject else self.reason


@dataclass(frozen=True)
class Noted:
    """One line that an operator may want to know. Nothing is lost."""

    line: str


@dataclass(frozen=True)
class Judged:
    """A variant that was made and measured, with its entry for the manifest: published or withheld."""

    planned: VariantPlan
    made: Made
    entry: Entry


@dataclass(frozen=True)
class Unmade:
    """A variant that was not made or not measured. An earlier :class:`Failed` says why."""

    planned: VariantPlan


@dataclass(frozen=True)
class Outdated:
    """A published variant that must be quantized, and why new metadata does not bring it up to date."""

    planned: VariantPlan
    repo_id: str
    reason: str


@dataclass(frozen=True)
class Committed:
    """Variants that a commit put on record. ``plotted`` is the commit on ``main`` if it holds a plot of perplexity."""

    repo_id: str
    rows: list[VariantReport]
    plotted: str | None = None


@dataclass(frozen=True)
class CommittedBeside:
    """What was committed in addition to variants: cards or a comparison."""

    what: str


Event = Failed | Noted | Judged | Unmade | Outdated | Committed | CommittedBeside


def failed(planned: VariantPlan, reason: object) -> Failed:
    """Returns the failure of a variant, with its reason."""
    name, recipe = planned.variant.name, planned.recipe
    return Failed(f"{recipe.source} {recipe.format} {name}", str(reason), name)
