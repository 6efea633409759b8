"""One format of a model: calibrate once, quantize wave by wave, and of each wave evaluate, gate, publish and verify
variant by variant.

A variant that fails is left out and reported; the others go on. What is on the Hub leaves the disk at once, so that
no more than a wave's variants lie there; where there are cores enough, the next wave is quantized meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from itertools import chain, pairwise

from prefect import get_run_logger

from flows import format_stages as stages
from flows.artifacts import show_plot
from flows.format_stages import Composed
from flows.stage import StageFailed
from quantizers import quantizer_of
from quantizers.protocol import Job, Layout
from quantpress import press
from quantpress.card import CardContext
from quantpress.evaluation.base import Baseline
from quantpress.evaluation.plots import PERPLEXITY_PLOT
from quantpress.manifest import Alias, Entry
from quantpress.plan import FormatPlan, VariantPlan
from quantpress.publication import Pressed
from quantpress.published import Published
from quantpress.report import VariantReport
from quantpress.settings import Settings
from quantpress.source import Source, chat_template

#: Threads from which on a wave is quantized while the one before is evaluated, each with half of them. With fewer,
#: both would only wait for each other.
_OVERLAP_THREADS = 4
#: Times that a commit is composed anew because another press committed in between.
_ATTEMPTS = 10


@dataclass(frozen=True)
class Around:
    """What every variant of a format needs: where it works, and what the cards say beside the variant."""

    source: Source
    bench: press.Bench
    settings: Settings
    job: Job
    reference: Baseline
    base: Baseline
    siblings: dict[str, str]
    aliases: list[Alias]


@dataclass(frozen=True)
class Wave:
    """The variants of a wave, what was made of them by name, and the bench to measure it on."""

    variants: list[VariantPlan]
    made: dict[str, press.Made]
    bench: press.Bench


#: Makes the variants of a wave on a bench: variant's name to what was made.
Make = Callable[[list[VariantPlan], press.Bench], dict[str, press.Made]]
#: Makes wave after wave, as their files are measured and cleared.
Quantized = Callable[[list[list[VariantPlan]], press.Bench, Make], Iterator[Wave]]


def press_format(
    source: Source,
    plan: FormatPlan,
    bench: press.Bench,
    settings: Settings,
    reference: Baseline,
    siblings: dict[str, str],
    failures: list[str],
) -> list[VariantReport]:
    """Presses what is to be made of one format; adds a line to ``failures`` for each variant that failed."""
    job = stages.calibrate(bench, plan, settings)
    base = stages.format_baseline(bench, plan, job, reference)
    order, quantized = _layout(plan, job, bench, settings.disk_budget)
    failures += [f"{source.record.repo} {plan.format} {name}: {reason}" for name, reason in order.refused.items()]
    planned = {each.variant.name: each for each in plan.to_press}
    aliases = [
        Alias(recipe=planned[name].recipe, fingerprint=planned[name].recipe.fingerprint, same_as=other)
        for name, other in order.aliases.items()
    ]
    around = Around(source, bench, settings, job, reference, base, siblings, aliases)
    if aliases and not order.waves:
        _publish(plan, [], {}, around)
    waves = [[planned[name] for name in names] for names in order.waves]
    rows: list[VariantReport] = []

    def make(wave: list[VariantPlan], bench: press.Bench) -> dict[str, press.Made]:
        now = stages.published_now(plan, settings).published
        return _make([each for each in wave if not _is_there(each, plan.published, now)], bench, failures)

    for wave in chain(quantized(waves, bench, make), _refreshed(plan, bench, settings, failures)):
        for each in wave.variants:
            entry = _measure(each, wave, around, failures)
            if entry is not None:
                rows += _publish(plan, [entry], wave.made, around)
                bench.workspace.remove_variant(each.recipe)
    return rows


def _refreshed(plan: FormatPlan, bench: press.Bench, settings: Settings, failures: list[str]) -> Iterator[Wave]:
    """Each variant whose weights stay and whose metadata is made anew."""
    for each in plan.to_refresh:
        try:
            yield Wave([each], {each.variant.name: stages.refresh(bench, plan, each, settings)}, bench)
        except StageFailed as error:
            failures.append(f"{each.recipe.source} {each.recipe.format} {each.variant.name}: {error}")


def _is_there(planned: VariantPlan, before: Published, now: Published) -> bool:
    """Whether another press has published the variant since the plan was made."""
    name, branch = planned.variant.name, planned.variant.branch
    entry = now.entry(name, branch)
    return entry is not None and entry != before.entry(name, branch) and entry.fingerprint == planned.recipe.fingerprint


def _layout(plan: FormatPlan, job: Job, bench: press.Bench, budget: int | None) -> tuple[Layout, Quantized]:
    """The waves, and whether they overlap. Two overlapping waves share the disk budget; they do not overlap where a
    variant needs more than half of it."""
    if not plan.to_press:
        return Layout(waves=[]), _quantized_in_turn
    whole = stages.layout(plan, job, budget)
    if bench.threads < _OVERLAP_THREADS:
        return whole, _quantized_in_turn
    halved = whole if budget is None else stages.layout(plan, job, budget // 2)
    return (whole, _quantized_in_turn) if len(halved.refused) > len(whole.refused) else (halved, _quantized_ahead)


def _quantized_in_turn(waves: list[list[VariantPlan]], bench: press.Bench, make: Make) -> Iterator[Wave]:
    """Each wave is quantized when the one before is published."""
    for wave in waves:
        yield Wave(wave, make(wave, bench), bench)


def _quantized_ahead(waves: list[list[VariantPlan]], bench: press.Bench, make: Make) -> Iterator[Wave]:
    """Each wave is quantized while the one before is evaluated and published, on half of the threads each."""
    half = replace(bench, threads=bench.threads // 2)
    with ThreadPoolExecutor(max_workers=1) as executor:
        made = make(waves[0], bench) if waves else {}
        for wave, after in pairwise(waves):
            # Prefect finds the flow run that a task belongs to in the context.
            following = executor.submit(copy_context().run, make, after, half)
            yield Wave(wave, made, half)
            made = following.result()
        if waves:
            yield Wave(waves[-1], made, bench)


def _make(wave: list[VariantPlan], bench: press.Bench, failures: list[str]) -> dict[str, press.Made]:
    """The wave's variants by name; where making them together fails, each is made alone."""
    log = get_run_logger()
    if len(wave) > 1:
        log.info("%s: a wave of %s", wave[0].variant.format, ", ".join(each.variant.name for each in wave))
        try:
            return {each.variant.name: made for each, made in zip(wave, stages.quantize_wave(bench, wave), strict=True)}
        except StageFailed as error:
            log.warning("making the wave at once failed, each variant is made alone: %s", error)
    found = {}
    for each in wave:
        try:
            found[each.variant.name] = stages.quantize(bench, each)
        except StageFailed as error:
            failures.append(f"{each.recipe.source} {each.recipe.format} {each.variant.name}: {error}")
    return found


def _measure(planned: VariantPlan, wave: Wave, around: Around, failures: list[str]) -> Entry | None:
    made = wave.made.get(planned.variant.name)
    if made is None:
        return None
    try:
        evaluation = stages.evaluate(wave.bench, planned, made, around.base)
        return stages.gate(wave.bench, planned, made, evaluation, around.base)
    except StageFailed as error:
        failures.append(f"{planned.recipe.source} {planned.recipe.format} {planned.variant.name}: {error}")
        return None


def _publish(
    plan: FormatPlan, entries: list[Entry], made: dict[str, press.Made], around: Around
) -> list[VariantReport]:
    """Commits what of the entries the repo does not hold yet, and verifies it."""

    def compose(now: FormatPlan) -> Composed | None:
        new = [entry for entry in entries if not now.published.holds(entry)]
        if entries and not new:
            return None  # another press published them too
        pressed, context = _pressed(plan, new, made, around), _context(plan, around)
        return stages.card(now, around.source, pressed, context, around.bench.workspace)

    composed, heads = commit_composed(plan, around.source, around.settings, compose)
    if composed is None:
        return []
    for branch in heads:
        stages.verify(plan.repo_id, branch, [row.variant for row in composed.rows], around.settings)
    if any(plot.name == PERPLEXITY_PLOT for plot in composed.plots):
        show_plot(around.settings.target_endpoint, plan.repo_id, heads["main"])
    return composed.rows


def commit_composed(
    plan: FormatPlan, source: Source, settings: Settings, compose: Callable[[FormatPlan], Composed | None]
) -> tuple[Composed | None, dict[str, str]]:
    """Commits what ``compose`` makes of the repo as it is at this moment; returns it and the new heads by branch.

    Where another press commits in between, its work is read and the commit composed anew.
    """
    for _ in range(_ATTEMPTS):
        now = stages.published_now(plan, settings)
        composed = compose(now)
        if composed is None:
            return None, {}
        heads = stages.publish(composed, source, settings)
        if heads is not None:
            return composed, heads
    raise StageFailed(f"{plan.repo_id}: other commits came first {_ATTEMPTS} times; run again when they have ended")


def _context(plan: FormatPlan, around: Around) -> CardContext:
    return CardContext(
        repo_id=plan.repo_id,
        branch="main",
        quantized_by=around.settings.namespace,
        chat_template=chat_template(around.bench.workspace.source),
        siblings=around.siblings,
        target_endpoint=around.settings.target_endpoint,
        source_endpoint=around.settings.source_endpoint,
        source_bytes=around.source.weight_bytes,
    )


def _pressed(plan: FormatPlan, entries: list[Entry], made: dict[str, press.Made], around: Around) -> Pressed:
    chosen = quantizer_of(plan.variants[0].variant)
    baselines = [around.reference.evaluation]
    if around.base is not around.reference:
        baselines.append(around.base.evaluation)
    folders = {entry.variant: made[entry.variant].files for entry in entries}
    return Pressed(entries, around.aliases, folders, chosen.shared_files(around.job), baselines, chosen.tools())
