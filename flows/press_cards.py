"""A format of which nothing is to be made: cards and manifest are committed alone, and what is not verified yet is."""

from __future__ import annotations

from flows import format_stages
from flows.verification import commit_cards, commit_verifications, verify_variants
from quantpress.machine.workspace import Workspace
from quantpress.plan.steps import FormatPlan
from quantpress.settings import Settings
from quantpress.source.source import Source


def press_cards(source: Source, plan: FormatPlan, settings: Settings, failures: list[str]) -> bool:
    """Verifies what a press published and did not live to verify, or found faulty; then renders all cards of the repo
    anew, under the source's record as it is now, and commits them if they are outdated or something else was found.
    Adds a line to ``failures`` for what is wrong; returns whether something was committed."""
    found = verify_variants(
        plan, [(each.variant.name, each.variant.branch) for each in plan.to_verify], settings, failures
    )
    context = format_stages.published_context(plan, source, settings)
    workspace = Workspace(settings.home, source.record.repo, source.record.sha)
    commit = commit_cards if plan.cards_outdated else commit_verifications
    return commit(plan, source, settings, found, context, workspace)
