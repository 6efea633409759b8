"""Commits that are composed anew where another press came first."""

from __future__ import annotations

from collections.abc import Callable

from flows import format_stages
from flows.format_stages import Composed
from flows.stage import StageFailed
from quantpress.plan.steps import FormatPlan
from quantpress.publish.commit import ATTEMPTS
from quantpress.settings import Settings
from quantpress.source.source import Source


def commit_composed(
    plan: FormatPlan, source: Source, settings: Settings, compose: Callable[[FormatPlan], Composed | None]
) -> tuple[Composed | None, dict[str, str]]:
    """Commits what ``compose`` makes of the repo as it is at this moment; returns it and the new heads by branch.

    Where another press commits in between, its work is read and the commit composed anew.
    """
    for _ in range(ATTEMPTS):
        now = format_stages.read_again(plan, settings)
        composed = compose(now)
        if composed is None:
            return None, {}
        heads = format_stages.publish(composed, source, settings)
        if heads is not None:
            return composed, heads
    raise StageFailed(f"{plan.repo_id}: other commits came first {ATTEMPTS} times; run again when they have ended")
