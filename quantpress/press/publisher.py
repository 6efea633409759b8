"""Makes commits to a format's repo, and verifies what was committed. Composes each commit from the repo's current
state."""

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
    """Results of a verification that this run has not committed yet.

    ``sound`` is a dict from variant to commit: for each sound variant, it holds the commit that was downloaded.
    ``faulty`` is a dict from variant to faults: for each faulty variant, it holds what was wrong.
    """

    sound: dict[str, str] = field(default_factory=dict)
    faulty: dict[str, list[str]] = field(default_factory=dict)
    record: VerificationRecord | None = None

    def onto(self, content: CommitContent) -> CommitContent:
        """Returns ``content`` with these results added, so that the next commit records them."""
        return replace(content, verified=self.sound, faulty=self.faulty, verification=self.record)

    def is_news(self, shelf: Shelf) -> bool:
        """Whether one of these results is new. ``shelf`` is what the repo holds now.

        The result of a sound variant is new if the repo does not record the variant as sound. The result of a faulty
        variant is new if the repo does not record the same faults.
        """
        return any(
            entry.verified is None or bool(entry.problems)
            if entry.variant in self.sound
            else (entry.verified, entry.problems) != (None, self.faulty[entry.variant])
            for entry in shelf.entries()
            if entry.status == "published" and (entry.variant in self.sound or entry.variant in self.faulty)
        )


@dataclass(frozen=True)
class Publisher:
    """Makes commits to the repo of a format. ``context`` is what the cards say in addition to the manifest."""

    source: Source
    settings: Settings
    context: CardContext
    stages: FormatStages

    def commit(
        self, plan: FormatPlan, content_of: Callable[[FormatPlan], tuple[CommitContent, str] | None]
    ) -> tuple[Composed, dict[str, str]] | None:
        """Composes a commit from the repo's current state and sends it.

        ``content_of`` takes the plan with the repo's current state. It returns the content and the commit's message, or
        None if there is nothing to commit. Returns what was composed and a dict from branch to new head, or None if
        there is nothing to commit. If another commit comes first, reads the repo and composes the commit again.
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
                raise Outrun(f"{plan.repo_id}: another commit came first; reading the repo, composing our commit again")
            return composed, heads

        return until_first(plan.repo_id, attempt)

    def commit_cards(self, plan: FormatPlan, found: Verifications) -> bool:
        """Commits cards, plots and manifest, with the results in ``found``. All other published files stay as they are.
        Returns whether the repo changed."""
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
        """If a result in ``found`` is new to the repo, commits cards, plots and manifest to record the results. Returns
        whether the repo changed."""
        if found.record is None or not found.is_news(self.stages.read_again(plan, self.settings).shelf):
            return False
        return self.commit_cards(plan, found)


def verify_variants(
    plan: FormatPlan, variants: list[tuple[str, str]], settings: Settings, stages: FormatStages
) -> tuple[Verifications, list[str]]:
    """Downloads and loads published variants, given as pairs of variant and branch. Returns the results, and a line for
    each branch that has a problem or cannot be verified.

    If a branch has a problem that belongs to no single variant, all its variants in ``variants`` count as faulty. So
    the next run verifies them again.
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
