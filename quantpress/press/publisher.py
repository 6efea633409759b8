"""Commits to a format's repo, composed from its current state, and verifies what was committed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from quantpress.card.context import CardContext
from quantpress.errors import QuantpressError
from quantpress.evaluation.plots.draw import DIVERGENCE_PLOT, PERPLEXITY_PLOT
from quantpress.machine.workspace import Workspace
from quantpress.plan.steps import FormatPlan
from quantpress.press.compose import CommitContent, Composed, adopted
from quantpress.press.format_stages import FormatStages
from quantpress.publish.commit import Outrun, until_first
from quantpress.record.manifest import VerificationRecord
from quantpress.record.shelf import Shelf
from quantpress.settings import Settings
from quantpress.source.source import Source
from quantpress.toolchain.llama_cpp import planned_version


@dataclass(frozen=True)
class Verifications:
    """Results of a verification that are not on record yet. ``sound`` maps a variant to the commit that it was
    downloaded from, ``faulty`` maps a variant to what was wrong."""

    sound: dict[str, str] = field(default_factory=dict)
    faulty: dict[str, list[str]] = field(default_factory=dict)
    record: VerificationRecord | None = None

    def onto(self, content: CommitContent) -> CommitContent:
        """Returns ``content`` with these results on record."""
        return replace(content, verified=self.sound, faulty=self.faulty, verification=self.record)

    def is_news(self, shelf: Shelf) -> bool:
        """Whether the repo's record of one of these variants differs from the result here."""
        return any(
            entry.verified is None or bool(entry.problems)
            if entry.variant in self.sound
            else (entry.verified, entry.problems) != (None, self.faulty[entry.variant])
            for entry in shelf.entries()
            if entry.status == "published" and (entry.variant in self.sound or entry.variant in self.faulty)
        )


@dataclass(frozen=True)
class Publisher:
    """Commits to the repo of a format. ``context`` is what the cards say in addition to the manifest."""

    source: Source
    settings: Settings
    context: CardContext
    stages: FormatStages

    def commit(
        self, plan: FormatPlan, content_of: Callable[[FormatPlan], tuple[CommitContent, str] | None]
    ) -> tuple[Composed, dict[str, str]] | None:
        """Commits what ``content_of`` makes of the repo's current state, under the message that it gives.

        Returns what was composed and the new heads by branch, or None if there is nothing to commit. If another press
        commits in between, its work is read and the commit is composed again.
        """
        folder = Workspace(self.settings.home, self.source.record.repo, self.source.record.sha).work
        plots = folder / plan.format / "plots"

        def attempt() -> tuple[Composed, dict[str, str]] | None:
            now = self.stages.read_again(plan, self.settings)
            found = content_of(now)
            if found is None:
                return None
            content, message = found
            composed = self.stages.card(now, self.source, content, self.context, plots)
            heads = self.stages.publish(composed, self.source, self.settings, message)
            if heads is None:
                raise Outrun(f"{plan.repo_id}: another commit came first; it is read, and this one is composed again")
            return composed, heads

        return until_first(plan.repo_id, attempt)

    def commit_cards(self, plan: FormatPlan, found: Verifications) -> bool:
        """Commits only cards, plots and manifest; the published files stay as they are. Returns whether the repo
        changed."""
        results = {"Verified after upload": list(found.sound), "Found faulty after upload": list(found.faulty)}
        said = [f"{what}: {', '.join(variants)}" for what, variants in results.items() if variants]
        message = "; ".join(said) or f"Cards of {self.source.record.repo}@{self.source.record.sha[:8]}"

        def content_of(now: FormatPlan) -> tuple[CommitContent, str] | None:
            content = adopted(now, (PERPLEXITY_PLOT, DIVERGENCE_PLOT))
            return None if content is None else (found.onto(content), message)

        done = self.commit(plan, content_of)
        if done is None:
            return False
        composed, heads = done
        return any(composed.plan.shelf.heads.get(name) != head for name, head in heads.items())

    def commit_verifications(self, plan: FormatPlan, found: Verifications) -> bool:
        """Commits only cards, plots and manifest, with the results on record, unless they are on record already.
        Returns whether the repo changed."""
        if found.record is None or not found.is_news(self.stages.read_again(plan, self.settings).shelf):
            return False
        return self.commit_cards(plan, found)


def verify_variants(
    plan: FormatPlan, variants: list[tuple[str, str]], settings: Settings, stages: FormatStages
) -> tuple[Verifications, list[str]]:
    """Downloads and loads published variants, given with their branches. Returns the results, and a line for each
    branch that has a problem or cannot be verified.

    A problem that belongs to no single variant counts against all variants of its branch that were verified. So they
    are verified again next time.
    """
    sound: dict[str, str] = {}
    faulty: dict[str, list[str]] = {}
    wrong: list[str] = []
    record = None
    for branch in sorted({branch for _, branch in variants}):
        names = [name for name, own in variants if own == branch]
        try:
            found = stages.verify(plan.repo_id, branch, names, settings)
        except QuantpressError as error:
            wrong.append(str(error))
            continue
        if found.problems:
            wrong.append(f"{plan.repo_id}@{branch}: {'; '.join(found.problems)}")
        by_name = found.faults
        of_all = by_name.pop("", [])
        faulty |= by_name | {name: [*by_name.get(name, []), *of_all] for name in names if name in by_name or of_all}
        sound |= {name: found.commit for name in names if name not in faulty}
        record = found.record(planned_version())
    return Verifications(sound, faulty, record), wrong
