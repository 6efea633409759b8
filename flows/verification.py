"""Verifying what was published, and putting what was found on record with the next commit."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from flows import format_stages
from flows.committing import commit_composed
from flows.format_stages import Composed
from flows.stage import StageFailed
from quantpress.card.context import CardContext
from quantpress.evaluation.plots.draw import DIVERGENCE_PLOT, PERPLEXITY_PLOT
from quantpress.machine.workspace import Workspace
from quantpress.plan.steps import FormatPlan
from quantpress.press.compose import CommitContent, adopted
from quantpress.record.manifest import VerificationRecord
from quantpress.record.shelf import Shelf
from quantpress.settings import Settings
from quantpress.source.source import Source
from quantpress.toolchain.llama_cpp import planned_version


@dataclass(frozen=True)
class Verifications:
    """What was found of published variants and is not on record yet: of sound ones the commit that they were downloaded
    from, of faulty ones what was wrong."""

    sound: dict[str, str] = field(default_factory=dict)
    faulty: dict[str, list[str]] = field(default_factory=dict)
    record: VerificationRecord | None = None

    def onto(self, content: CommitContent) -> CommitContent:
        """The same to be committed, with this on record."""
        return replace(content, verified=self.sound, faulty=self.faulty, verification=self.record)

    def is_news(self, shelf: Shelf) -> bool:
        """Whether the repo says something else of one of these variants."""
        return any(
            entry.verified is None or bool(entry.problems)
            if entry.variant in self.sound
            else (entry.verified, entry.problems) != (None, self.faulty[entry.variant])
            for entry in shelf.entries()
            if entry.status == "published" and (entry.variant in self.sound or entry.variant in self.faulty)
        )


def verify_variants(
    plan: FormatPlan, variants: list[tuple[str, str]], settings: Settings, failures: list[str]
) -> Verifications:
    """Downloads and loads published variants, given with their branches; adds a line to ``failures`` for each branch on
    which something is wrong, or that cannot be looked at.

    What is wrong with no single variant is held against all that were looked at: they are looked at again.
    """
    sound: dict[str, str] = {}
    faulty: dict[str, list[str]] = {}
    record = None
    for branch in sorted({branch for _, branch in variants}):
        names = [name for name, own in variants if own == branch]
        try:
            found = format_stages.verify(plan.repo_id, branch, names, settings)
        except StageFailed as error:
            failures.append(str(error))
            continue
        if found.problems:
            failures.append(f"{plan.repo_id}@{branch}: {'; '.join(found.problems)}")
        by_name = found.faults
        of_all = by_name.pop("", [])
        faulty |= by_name | {name: [*by_name.get(name, []), *of_all] for name in names if name in by_name or of_all}
        sound |= {name: found.commit for name in names if name not in faulty}
        record = found.record(planned_version())
    return Verifications(sound, faulty, record)


def commit_verifications(
    plan: FormatPlan,
    source: Source,
    settings: Settings,
    found: Verifications,
    context: CardContext,
    workspace: Workspace,
) -> bool:
    """Commits cards and manifest alone, with what was found on record; nothing where they say so already. Returns
    whether something was committed."""
    if found.record is None or not found.is_news(format_stages.read_again(plan, settings).shelf):
        return False
    return commit_cards(plan, source, settings, found, context, workspace)


def commit_cards(
    plan: FormatPlan,
    source: Source,
    settings: Settings,
    found: Verifications,
    context: CardContext,
    workspace: Workspace,
) -> bool:
    """Commits cards and manifest alone: what is published stays as it is. Returns whether they were not so before."""
    results = {"Verified after upload": list(found.sound), "Found faulty after upload": list(found.faulty)}
    said = [f"{what}: {', '.join(variants)}" for what, variants in results.items() if variants]
    message = "; ".join(said) or f"Cards of {source.record.repo}@{source.record.sha[:8]}"

    def compose(now: FormatPlan) -> Composed | None:
        content = adopted(now, (PERPLEXITY_PLOT, DIVERGENCE_PLOT))
        return (
            None
            if content is None
            else format_stages.card(now, source, found.onto(content), context, workspace, message)
        )

    composed, heads = commit_composed(plan, source, settings, compose)
    return composed is not None and any(composed.plan.shelf.heads.get(name) != head for name, head in heads.items())
