"""Makes the variants of a format in waves. A wave is a group of variants that lie on the disk together.

Either each wave is finished before the next one is made, or the next one is made while the wave is measured. A bench
holds what the stages share, such as source, folders and the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from functools import partial

from quantizers.protocol import Job, Layout
from quantpress.errors import QuantpressError
from quantpress.plan.steps import FormatPlan, VariantPlan
from quantpress.press.bench import Bench
from quantpress.press.events import Event, Failed, Noted, failed
from quantpress.press.format_stages import FormatStages
from quantpress.press.stages import Made, left_on_disk

#: With at least this many threads, a wave is quantized while the previous wave is evaluated. Each of the two waves gets
#: half of the threads. With fewer threads, the two waves would only wait for each other.
_OVERLAP_THREADS = 4


@dataclass(frozen=True)
class Wave:
    """Variants that lie on the disk together.

    ``made`` is a dict from variant to its files and result. It holds the variants that were made. ``bench`` is the
    bench for measuring the variants. ``events`` are the failures and notes from making the variants.
    """

    variants: list[VariantPlan]
    made: dict[str, Made]
    bench: Bench
    events: list[Event] = field(default_factory=list)


#: Makes the variants of a wave on a bench.
Make = Callable[[list[VariantPlan], Bench], Wave]
#: Makes one wave after another. The caller measures and removes the files of each wave that it gets.
Maker = Callable[[list[list[VariantPlan]], Bench, Make], Iterator[Wave]]


def layout(plan: FormatPlan, job: Job, bench: Bench, budget: int | None, stages: FormatStages) -> tuple[Layout, Maker]:
    """Returns the waves, and the function that makes them. ``budget`` is the disk budget in bytes (None: no limit).

    If a killed run left files of variants on the disk, these variants are the first wave. No other wave is made
    until the first wave is finished, because the other waves need its disk space.
    """
    order, quantized = _cut(plan, job, bench, budget, stages)
    left = {each.variant.name for each in plan.to_press if left_on_disk(bench, each)}
    first = [name for wave in order.waves for name in wave if name in left]
    if not first:
        return order, quantized
    rest = [[name for name in wave if name not in left] for wave in order.waves]
    waves = [first, *filter(None, rest)]
    return order.model_copy(update={"waves": waves}), partial(_after_the_first, quantized)


def _cut(plan: FormatPlan, job: Job, bench: Bench, budget: int | None, stages: FormatStages) -> tuple[Layout, Maker]:
    """Returns the waves, and the function that makes them: overlapping or in turn.

    Two overlapping waves share the disk budget, so each gets half of it. If half of the budget is too small for a
    variant, the waves do not overlap.
    """
    if not plan.to_press:
        return Layout(waves=[]), in_turn
    whole = stages.layout(plan, job, budget)
    if bench.threads < _OVERLAP_THREADS:
        return whole, in_turn
    halved = whole if budget is None else stages.layout(plan, job, budget // 2)
    return (whole, in_turn) if len(halved.refused) > len(whole.refused) else (halved, _ahead)


def in_turn(waves: list[list[VariantPlan]], bench: Bench, make: Make) -> Iterator[Wave]:
    """Makes each wave after the previous wave is published."""
    for wave in waves:
        yield make(wave, bench)


def _after_the_first(quantized: Maker, waves: list[list[VariantPlan]], bench: Bench, make: Make) -> Iterator[Wave]:
    """Makes the first wave alone. Then makes the other waves with ``quantized``."""
    yield from in_turn(waves[:1], bench, make)
    yield from quantized(waves[1:], bench, make)


def _ahead(waves: list[list[VariantPlan]], bench: Bench, make: Make) -> Iterator[Wave]:
    """Makes each wave while the previous wave is evaluated and published. While two waves overlap, each wave has half
    of the threads."""
    if not waves:
        return
    half = replace(bench, threads=bench.threads // 2)
    with ThreadPoolExecutor(max_workers=1) as executor:
        made = make(waves[0], bench)
        for wave in waves[1:]:
            # The thread runs in a copy of this context, because Prefect looks up a task's flow run in the context.
            following = executor.submit(copy_context().run, make, wave, half)
            yield replace(made, bench=half)
            made = following.result()
        yield replace(made, bench=bench)


def make_wave(wave: list[VariantPlan], bench: Bench, stages: FormatStages) -> Wave:
    """Makes the variants of a wave together. If this fails, makes each variant alone."""
    events: list[Event] = []
    if len(wave) > 1:
        names = ", ".join(each.variant.name for each in wave)
        try:
            found = stages.quantize_wave(bench, wave)
        except QuantpressError as error:
            events.append(Noted(f"could not make {names} together, so each variant is made alone: {error}"))
        else:
            return Wave(wave, {each.variant.name: made for each, made in zip(wave, found, strict=True)}, bench)
    alone = {}
    for each in wave:
        try:
            alone[each.variant.name] = stages.quantize(bench, each)
        except QuantpressError as error:
            events.append(failed(each, error))
    return Wave(wave, alone, bench, events)


def refused(plan: FormatPlan, order: Layout) -> Iterator[Failed]:
    """Returns a failure for each variant that the layout refused, because this model cannot have it or because the disk
    budget is too small for it."""
    planned = {each.variant.name: each for each in plan.to_press}
    return (failed(planned[name], reason) for name, reason in order.refused.items())
