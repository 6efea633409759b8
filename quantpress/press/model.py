"""Presses one model of the catalog: makes its variants from the source, and publishes them.

    fetch ─► check ─► baseline ─► per format: calibrate ─► quantize ─► evaluate ─► gate ─► card ─► publish ─► verify

If a format fails, the other formats are still pressed.
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
    """Carries out the plan of a model. Raises :class:`QuantpressError` for an error that stops the whole model."""
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
    """Removes the files of all variants that this run does not make or measure.

    If such files are on the disk, a killed run left them there. The disk budget does not count them, so they would take
    too much disk.
    """
    for each in plan.formats:
        to_make = each.to_make
        for planned in each.variants:
            if planned not in to_make:
                workspace.remove_variant(planned.recipe)


def leave_idle(plan: ModelPlan, settings: Settings, formats: Sequence[str] | None) -> None:
    """Removes the files that killed runs left on the disk, for a model that has no work now.

    Keeps the files if a later run can use them. This is so if a step is blocked or deferred, or if ``formats`` leaves
    other formats to a later run.
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
            f"{repo}: {bench.protocol.windows} windows are measured, not {settings.windows}: the log-probabilities "
            f"of more windows would not fit the logits budget of {settings.logits_budget / 1e9:.1f} GB"
        )
    bench = replace(bench, settings=plan.within_disk(settings, bench.workspace.room()))
    stages.fetch(bench, plan.disk_needed(bench.settings))
    if unused := stages.check(bench).in_words:
        yield Noted(f"{repo}: {unused}")
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
    """Returns the reason why the format cannot be made from this source on this machine, or None if it can be made.
    Installs the format's tools if quantpress can do so."""
    try:
        if name := traits_of(quantizer_of(plan.to_make[0].variant)).toolchain:
            stages.toolchain(name)
        stages.check_format(bench, plan)
    except QuantpressError as error:
        return str(error)
    return None


def _guarded(plan: ModelPlan, each: FormatPlan, events: Iterator[Event]) -> Iterator[Event]:
    """Yields the events of one format. An error that stops this format becomes a :class:`Failed`, so that the other
    formats go on."""
    try:
        yield from events
    except QuantpressError as error:
        yield Failed(f"{plan.line.repo} {each.format}", str(error))


def _bring_together(plan: ModelPlan, source: Source, settings: Settings, stages: ModelStages) -> Iterator[Event]:
    """Updates the model's collection and comparison. An error is only noted, because the published files are complete
    without the collection and the comparison, and the next run tries again.

    The comparison's commit comes last, because it records for the next plan what was compared and what the collection
    holds.
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
