"""Cards and manifest of a format, committed alone: what is published stays as it is."""

from __future__ import annotations

from flows import format_stages as stages
from flows.format_stages import Composed
from flows.press_format import commit_composed
from quantpress.evaluation.plots import DIVERGENCE_PLOT, PERPLEXITY_PLOT
from quantpress.plan import FormatPlan
from quantpress.publication import adopted
from quantpress.settings import Settings
from quantpress.source import Source
from quantpress.workspace import Workspace


def press_cards(source: Source, plan: FormatPlan, settings: Settings) -> None:
    """Renders all cards of a repo anew, under the source's record as it is now, and commits them."""
    context = stages.published_context(plan, source, settings)
    workspace = Workspace(settings.home, source.record.repo, source.record.sha)

    def compose(now: FormatPlan) -> Composed | None:
        pressed = adopted(now, (PERPLEXITY_PLOT, DIVERGENCE_PLOT))
        return None if pressed is None else stages.card(now, source, pressed, context, workspace)

    commit_composed(plan, source, settings, compose)
