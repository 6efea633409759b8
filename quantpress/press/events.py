"""The events that a press (a run that makes and publishes variants) reports while it works. The press's caller
collects, logs and shows the events."""

from __future__ import annotations

from dataclasses import dataclass

from quantpress.plan.steps import VariantPlan
from quantpress.press.stages import Made
from quantpress.record.manifest import Entry
from quantpress.record.report import VariantReport


@dataclass(frozen=True)
class Failed:
    """Something could not be made, measured, published or found sound.

    ``subject`` says what, and ``reason`` says why. ``variant`` is the variant's name, or empty if the subject is no
    variant.
    """

    subject: str
    reason: str
    variant: str = ""

    @property
    def line(self) -> str:
        return f"{self.subject}: {self.reason}" if self.subject else self.reason


@dataclass(frozen=True)
class Noted:
    """One line of information for the operator. The line reports no failure."""

    line: str


@dataclass(frozen=True)
class Judged:
    """A variant that was made and measured. ``entry`` is the variant's entry for the manifest. The entry's status is
    ``published`` or ``withheld``."""

    planned: VariantPlan
    made: Made
    entry: Entry


@dataclass(frozen=True)
class Unmade:
    """A variant that was not made or not measured. An earlier :class:`Failed` says why."""

    planned: VariantPlan


@dataclass(frozen=True)
class Outdated:
    """A published variant that must be quantized again. ``reason`` says why new metadata alone is not enough."""

    planned: VariantPlan
    repo_id: str
    reason: str


@dataclass(frozen=True)
class Committed:
    """Variants that were committed, one row each. If the commit on ``main`` holds a plot of perplexity, ``plotted`` is
    the sha of that commit."""

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
