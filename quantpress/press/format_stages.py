"""The stages of one format, as plain functions. A Prefect flow wraps each function as a task.

A bench holds what the stages share, such as source, settings and folders.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from quantizers import quantizer, quantizer_of
from quantizers.protocol import Job, Layout
from quantpress.card.context import CardContext, SourceFacts, card_context, gather_context, with_siblings
from quantpress.evaluation.base import Baseline
from quantpress.gate.judge import require_agreement
from quantpress.hub.hubs import hubs, target_hub
from quantpress.plan.steps import FormatPlan, VariantPlan
from quantpress.press import stages
from quantpress.press.bench import Bench
from quantpress.press.compose import CommitContent, Composed, compose_format
from quantpress.press.refresh import Stale, fetch_published, keeps_costly, refresh, retrieve_costly
from quantpress.press.stages import Made
from quantpress.publish.commit import Outrun, publish_format
from quantpress.record.manifest import Entry
from quantpress.record.measurement import Evaluation
from quantpress.record.names import model_name
from quantpress.record.shelf import read_shelf
from quantpress.record.verification import Verification
from quantpress.settings import Settings
from quantpress.source.source import Source, chat_template
from quantpress.verify.loading import Loader
from quantpress.verify.verify import verify as download_and_check


@dataclass(frozen=True)
class FormatStages:
    """The stages that :func:`quantpress.press.format.press_format` calls. :data:`PLAIN` holds them as plain
    functions."""

    calibrate: Callable[[Bench, FormatPlan], Job]
    baseline: Callable[[Bench, FormatPlan, Job, Baseline], Baseline]
    layout: Callable[[FormatPlan, Job, int | None], Layout]
    quantize_wave: Callable[[Bench, list[VariantPlan]], list[Made]]
    quantize: Callable[[Bench, VariantPlan], Made]
    fetch_again: Callable[[Bench, FormatPlan, VariantPlan], Made]
    renew: Callable[[Bench, FormatPlan, VariantPlan, Made], Made | Stale]
    evaluate: Callable[[Bench, VariantPlan, Made, Baseline], Evaluation]
    gate: Callable[[Bench, VariantPlan, Made, Evaluation, Baseline], Entry]
    context: Callable[[Bench, FormatPlan, Collection[str]], CardContext]
    published_context: Callable[[FormatPlan, Source, Settings], tuple[CardContext, str | None]]
    read_again: Callable[[FormatPlan, Settings], FormatPlan]
    card: Callable[[FormatPlan, Source, CommitContent, CardContext, Path], Composed]
    publish: Callable[[Composed, Source, Settings, str], dict[str, str] | None]
    verify: Callable[[str, str, list[str], Settings], Verification]


def calibrate(bench: Bench, plan: FormatPlan) -> Job:
    """Makes what all variants of the format share. Returns the job. If shared files that take long to make are
    published and can be used, downloads them instead of making them.

    The job always names the first variant of the ladder (the plan's list of variants) that has this preparation, even
    if this variant is published already. So the job stays equal when some variants have been published, and a later run
    finds what an earlier run made.
    """
    shared = plan.to_make[0].recipe.preparation_fingerprint
    first = next(each for each in plan.variants if each.recipe.preparation_fingerprint == shared)
    return stages.prepare(
        bench,
        first.variant,
        first.recipe,
        lambda job: retrieve_costly(target_hub(bench.settings), plan, job),
        keeps_costly=keeps_costly(plan),
    )


def baseline(bench: Bench, plan: FormatPlan, job: Job, reference: Baseline) -> Baseline:
    """Measures the unquantized model with the format's engine.

    If the engine would load the checkpoint folder that transformers measured, returns ``reference`` instead. Raises
    :class:`QuantpressError` if the figures do not agree with ``reference``.
    """
    chosen = quantizer(plan.format)
    unquantized = chosen.unquantized(job)
    if chosen.engine == "transformers" or unquantized == job.source:
        return reference  # the engine loads the checkpoint folder that transformers measured
    measured = stages.evaluate_unquantized(bench, chosen.engine, unquantized, reference)
    require_agreement(reference.evaluation, measured.evaluation)
    return measured


def layout(plan: FormatPlan, job: Job, budget: int | None) -> Layout:
    """Divides the variants to quantize into waves. The files of a wave lie on the disk together and take at most
    ``budget`` bytes (None: no limit)."""
    variants = [planned.variant for planned in plan.to_press]
    return quantizer_of(variants[0]).layout(job, variants, [each.variant for each in plan.standing], budget)


def fetch_again(bench: Bench, plan: FormatPlan, planned: VariantPlan) -> Made:
    """Downloads a published variant, to measure it again or to give it new metadata."""
    return fetch_published(target_hub(bench.settings), bench, plan, planned)


def renew(bench: Bench, plan: FormatPlan, planned: VariantPlan, published: Made) -> Made | Stale:
    """Gives a published variant the source's current metadata. If the source now holds other tensors, returns
    :class:`Stale`."""
    entry = plan.shelf.entry(planned.variant.name, planned.variant.branch)
    assert entry is not None
    return refresh(bench, planned, published, entry.recipe.source_sha)


def own_context(bench: Bench, plan: FormatPlan) -> CardContext:
    """Returns what the cards say in addition to the manifest. Reads the source on disk and asks no Hub."""
    facts = SourceFacts(chat_template(bench.workspace.source), bench.source.weight_bytes)
    return card_context(plan.repo_id, model_name(bench.source.record.repo), bench.settings, facts)


def context(bench: Bench, plan: FormatPlan, coming: Collection[str]) -> CardContext:
    """Returns what the cards say in addition to the manifest. Reads the source on disk, and asks the target Hub for the
    model's other repos. ``coming`` are the repos of other formats that the same press makes."""
    name, api = model_name(bench.source.record.repo), target_hub(bench.settings)
    return with_siblings(own_context(bench, plan), name, plan.format, api, coming)


def published_context(plan: FormatPlan, source: Source, settings: Settings) -> tuple[CardContext, str | None]:
    """Returns what the cards of a published repo say in addition to the manifest. Needs no source on disk.

    Also returns the reason if facts of the source are missing, else None.
    """
    manifest = plan.shelf.manifest
    assert manifest is not None, f"{plan.repo_id} has no cards"
    manifest = manifest.model_copy(update={"source": source.record})
    return gather_context(manifest, plan.repo_id, settings, hubs(settings))


def read_again(plan: FormatPlan, settings: Settings) -> FormatPlan:
    """Returns the plan with the shelf as it is now. The shelf is what the format's repo on the target Hub holds."""
    return replace(plan, shelf=read_shelf(target_hub(settings), plan.repo_id))


def card(plan: FormatPlan, source: Source, content: CommitContent, context: CardContext, folder: Path) -> Composed:
    """Composes the format's commits: manifest, cards, plots and sums. Draws the plots into ``folder``."""
    return compose_format(plan, source.record, content, context, folder)


def publish(composed: Composed, source: Source, settings: Settings, message: str) -> dict[str, str] | None:
    """Commits each branch. Returns a dict from branch to commit sha, or None if another commit came first."""
    api, shelf = target_hub(settings), composed.plan.shelf
    try:
        return publish_format(api, shelf, composed.commits, source.record, settings.private, message)
    except Outrun:
        return None


def verify(repo_id: str, branch: str, new: list[str], settings: Settings) -> Verification:
    """Downloads a branch into an empty cache, compares the files with the manifest, and loads the variants in
    ``new``."""
    loader = Loader(settings.compute_device(), settings.thread_count(), frozenset(new))
    return download_and_check(target_hub(settings), repo_id, branch, loader, settings.home)


def check(bench: Bench, plan: FormatPlan) -> None:
    """Checks whether the format can be made from this source, before any long work begins. Raises
    :class:`QuantpressError` if the format cannot be made."""
    first = plan.to_make[0]
    stages.check(bench, first.variant, first.recipe)


#: The stages as plain functions, without Prefect.
PLAIN = FormatStages(
    calibrate=calibrate,
    baseline=baseline,
    layout=layout,
    quantize_wave=stages.quantize_wave,
    quantize=stages.quantize,
    fetch_again=fetch_again,
    renew=renew,
    evaluate=stages.evaluate,
    gate=stages.gate,
    context=context,
    published_context=published_context,
    read_again=read_again,
    card=card,
    publish=publish,
    verify=verify,
)
