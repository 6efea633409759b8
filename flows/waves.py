"""The variants of a format in waves: made one wave after another, or the next while the one before is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

from prefect import get_run_logger

from flows import format_stages
from flows.stage import StageFailed
from quantizers.protocol import Job, Layout
from quantpress.plan.steps import FormatPlan, VariantPlan
from quantpress.press import stages
from quantpress.press.bench import Bench

#: Threads from which on a wave is quantized while the one before is evaluated, each with half of them. With fewer,
#: both would only wait for each other.
_OVERLAP_THREADS = 4


@dataclass(frozen=True)
class Wave:
    """Variants that lie on the disk together, what was made of them by name, and the bench to measure it on."""

    variants: list[VariantPlan]
    made: dict[str, stages.Made]
    bench: Bench


#: Makes the variants of a wave on a bench: variant's name to what was made.
Make = Callable[[list[VariantPlan], Bench], dict[str, stages.Made]]
#: Makes wave after wave, as their files are measured and cleared.
Quantized = Callable[[list[list[VariantPlan]], Bench, Make], Iterator[Wave]]


def layout(plan: FormatPlan, job: Job, bench: Bench, budget: int | None) -> tuple[Layout, Quantized]:
    """The waves, and how they are made. What a run that was killed left on the disk is a wave of its own and the first,
    made by itself: the others need its place."""
    order, quantized = _cut(plan, job, bench, budget)
    left = {each.variant.name for each in plan.to_press if stages.left_on_disk(bench, each)}
    first = [name for wave in order.waves for name in wave if name in left]
    if not first:
        return order, quantized
    rest = [[name for name in wave if name not in left] for wave in order.waves]
    waves = [first, *filter(None, rest)]
    return order.model_copy(update={"waves": waves}), partial(_quantized_after_the_first, quantized)


def _cut(plan: FormatPlan, job: Job, bench: Bench, budget: int | None) -> tuple[Layout, Quantized]:
    """The waves, and whether they overlap. Two overlapping waves share the disk budget; they do not overlap where a
    variant needs more than half of it."""
    if not plan.to_press:
        return Layout(waves=[]), _quantized_in_turn
    whole = format_stages.layout(plan, job, budget)
    if bench.threads < _OVERLAP_THREADS:
        return whole, _quantized_in_turn
    halved = whole if budget is None else format_stages.layout(plan, job, budget // 2)
    return (whole, _quantized_in_turn) if len(halved.refused) > len(whole.refused) else (halved, _quantized_ahead)


def _quantized_in_turn(waves: list[list[VariantPlan]], bench: Bench, make: Make) -> Iterator[Wave]:
    """Each wave is quantized when the one before is published."""
    for wave in waves:
        yield Wave(wave, make(wave, bench), bench)


def _quantized_after_the_first(
    quantized: Quantized, waves: list[list[VariantPlan]], bench: Bench, make: Make
) -> Iterator[Wave]:
    """The first wave alone, then the others."""
    yield from _quantized_in_turn(waves[:1], bench, make)
    yield from quantized(waves[1:], bench, make)


def _quantized_ahead(waves: list[list[VariantPlan]], bench: Bench, make: Make) -> Iterator[Wave]:
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


def make_wave(wave: list[VariantPlan], bench: Bench, failures: list[str]) -> dict[str, stages.Made]:
    """The wave's variants by name; where making them together fails, each is made alone."""
    log = get_run_logger()
    if len(wave) > 1:
        log.info("%s: a wave of %s", wave[0].variant.format, ", ".join(each.variant.name for each in wave))
        try:
            return {
                each.variant.name: made
                for each, made in zip(wave, format_stages.quantize_wave(bench, wave), strict=True)
            }
        except StageFailed as error:
            log.warning("making the wave at once failed, each variant is made alone: %s", error)
    found = {}
    for each in wave:
        try:
            found[each.variant.name] = format_stages.quantize(bench, each)
        except StageFailed as error:
            failures.append(f"{each.recipe.source} {each.recipe.format} {each.variant.name}: {error}")
    return found
