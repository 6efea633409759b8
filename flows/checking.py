"""Verifying what was published, and putting it on record with the next commit."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flows import format_stages as stages
from flows.committing import commit_composed
from flows.format_stages import Composed
from quantpress.card import CardContext
from quantpress.evaluation.plots import DIVERGENCE_PLOT, PERPLEXITY_PLOT
from quantpress.manifest import VerificationRecord
from quantpress.plan import FormatPlan
from quantpress.publication import Pressed, adopted
from quantpress.settings import Settings
from quantpress.source import Source
from quantpress.workspace import Workspace


@dataclass(frozen=True)
class Checked:
    """Variants that were verified and are not on record yet, with the commit that they were downloaded from."""

    variants: dict[str, str]
    record: VerificationRecord | None

    def onto(self, pressed: Pressed) -> Pressed:
        """The same to be committed, with this on record."""
        return replace(pressed, verified=self.variants, verification=self.record)


def check(plan: FormatPlan, variants: list[tuple[str, str]], settings: Settings) -> Checked:
    """Downloads and loads published variants, given with their branches."""
    found: dict[str, str] = {}
    record = None
    for branch in sorted({branch for _, branch in variants}):
        names = [name for name, own in variants if own == branch]
        record = stages.verify(plan.repo_id, branch, names, settings)
        found |= dict.fromkeys(names, record.commit)
    return Checked(found, record)


def commit_checked(
    plan: FormatPlan, source: Source, settings: Settings, checked: Checked, context: CardContext, workspace: Workspace
) -> None:
    """Commits cards and manifest alone, with what was verified on record; nothing where nothing was."""
    if checked.variants:
        commit_cards(plan, source, settings, checked, context, workspace)


def commit_cards(
    plan: FormatPlan, source: Source, settings: Settings, checked: Checked, context: CardContext, workspace: Workspace
) -> bool:
    """Commits cards and manifest alone: what is published stays as it is. Returns whether they were not so before."""
    message = f"Cards of {source.record.repo}@{source.record.sha[:8]}"
    if checked.variants:
        message = f"Verified after upload: {', '.join(checked.variants)}"

    def compose(now: FormatPlan) -> Composed | None:
        pressed = adopted(now, (PERPLEXITY_PLOT, DIVERGENCE_PLOT))
        return None if pressed is None else stages.card(now, source, checked.onto(pressed), context, workspace, message)

    composed, heads = commit_composed(plan, source, settings, compose)
    return composed is not None and any(composed.plan.published.heads.get(name) != head for name, head in heads.items())
