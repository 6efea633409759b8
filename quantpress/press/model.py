"""One model of the catalog, from its source to its published repositories.

    fetch ─► check ─► baseline ─► per format: calibrate ─► quantize ─► evaluate ─► gate ─► card ─► publish ─► verify

A format that fails does not stop the others.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

from quantizers import quantizer_of
from quantizers.traits import traits_of
from quantpress.errors import QuantpressError
from quantpress.machine.workspace import Workspace, remove_abandoned_work, remove_idle_work
from quantpress.plan.steps import FormatPlan, ModelPlan
from quantpress.press.bench import Bench
from quantpress.press.events import CommittedBeside, Event, Failed, Noted
from quantpress.press.format import press_cards, press_format
from quantpress.press.model_stages import ModelStages
from quantpress.settings import Settings
from quantpress.source.source import Source


def press_model(plan: ModelPlan, settings: Settings, stages: ModelStages) -> Iterator[Event]:
    """Does what is planned for a model. Raises :class:`QuantpressError` for an error that stops all of it."""
    if plan.source is None or not plan.has_work:
        return
    remove_abandoned_work(settings.home, plan.line.repo, keep=plan.source.record.sha)
    workspace = Workspace(settings.home, plan.line.repo, plan.source.record.sha)
    _remove_published(plan, workspace)
    if plan.source.record.gated is not None:
        stages.make_gated(plan.source, settings)
    failures = yield from _counted(_press_formats(plan, plan.source, settings, stages))
    yield from _bring_together(plan, plan.source, settings, stages)
    if not failures:
        workspace.remove_work()


def _remove_published(plan: ModelPlan, workspace: Workspace) -> None:
    """Removes files of published variants, which a killed run left on the disk. The disk budget does not count them."""
    for each in plan.formats:
        to_make = each.to_make
        for planned in each.variants:
            if planned not in to_make:
                workspace.remove_variant(planned.recipe)


def leave_idle(plan: ModelPlan, settings: Settings, formats: Sequence[str] | None) -> None:
    """Removes what killed runs left of a model that has no work, if nothing can go on with it.

    Steps that are blocked or deferred may go on with it later. If ``formats`` is given, so may the other formats.
    """
    if plan.source is not None and formats is None and not plan.blocked and not plan.deferred:
        remove_idle_work(settings.home, plan.line.repo)


def _counted(events: Iterator[Event]) -> Generator[Event, None, int]:
    """Yields the events and returns how many of them are failures."""
    failures = 0
    for event in events:
        failures += isinstance(event, Failed)
        yield event
    return failures


def _press_formats(plan: ModelPlan, source: Source, settings: Settings, stages: ModelStages) -> Iterator[Event]:
    for each in plan.formats:
        if each.cards_only:
            yield from _guarded(plan, each, press_cards(each, source, settings, stages.format))
    if any(each.to_make for each in plan.formats):
        yield from _press_files(plan, settings, stages)


def _press_files(plan: ModelPlan, settings: Settings, stages: ModelStages) -> Iterator[Event]:
    repo = plan.line.repo
    bench = Bench.of(plan, settings)
    if bench.protocol.windows < settings.windows:
        yield Noted(
            f"{repo}: {bench.protocol.windows} windows are measured, not {settings.windows}: log-probabilities of more "
            f"would not fit the logits budget of {settings.logits_budget / 1e9:.1f} GB"
        )
    bench = replace(bench, settings=plan.within_disk(settings, bench.workspace.room()))
    stages.fetch(bench, plan.disk_needed(bench.settings))
    stages.check(bench)
    sound = []
    for each in plan.formats:
        if each.to_make:
            obstacle = _obstacle(each, bench, stages)
            if obstacle is None:
                sound.append(each)
            else:
                yield Failed(f"{repo} {each.format}", obstacle)
    reference = stages.baseline(bench) if sound else None
    for each in sound:
        assert reference is not None
        coming = [other.repo_id for other in sound if other is not each]
        yield from _guarded(plan, each, press_format(each, bench, reference, coming, stages.format))


def _obstacle(plan: FormatPlan, bench: Bench, stages: ModelStages) -> str | None:
    """Returns why the format's tools are missing, or why the format cannot be made of this source; None if it can."""
    try:
        if name := traits_of(quantizer_of(plan.to_make[0].variant)).toolchain:
            stages.toolchain(name)
        stages.check_format(bench, plan)
    except QuantpressError as error:
        return str(error)
    return None


def _guarded(plan: ModelPlan, each: FormatPlan, events: Iterator[Event]) -> Iterator[Event]:
    """Yields the events of one format. An error that stops this format does not stop the others."""
    try:
        yield from events
    except QuantpressError as error:
        yield Failed(f"{plan.line.repo} {each.format}", str(error))


def _bring_together(plan: ModelPlan, source: Source, settings: Settings, stages: ModelStages) -> Iterator[Event]:
    """Updates collection and comparison, best effort: published files are no worse if these two lag behind by a night.

    The comparison's commit comes last: it tells the next plan what was compared, and what the collection holds.
    """
    collected: list[str] = []
    try:
        collected = stages.collect(source, [each.repo_id for each in plan.formats], settings)
    except QuantpressError as error:
        yield Noted(f"the collection was not updated: {error}")
    try:
        repo_id = stages.compare(source, collected, settings)
    except QuantpressError as error:
        yield Noted(f"the comparison was not updated: {error}")
    else:
        if repo_id:
            yield CommittedBeside(f"comparison {repo_id}")
