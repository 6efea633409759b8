"""Presses one format of a model: calibrates, and makes the variants wave by wave. A wave is a group of variants
that lie on the disk together. Each variant of a wave goes through the next steps separately from the others: it is
evaluated, judged by the gate (checks of quality), published and verified.

If a variant fails, the press reports the failure and goes on with the other variants. The files of a
variant are removed from the disk as soon as it is published, so the disk holds one wave. If there are enough cores, the
next wave is quantized while the current wave is evaluated and published. Then two waves share the disk budget.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Generator, Iterable, Iterator
from dataclasses import dataclass, replace

from quantpress.errors import QuantpressError
from quantpress.evaluation.base import Baseline
from quantpress.evaluation.plots.draw import PERPLEXITY_PLOT
from quantpress.plan.steps import FormatPlan, VariantPlan
from quantpress.press.bench import Bench, FormatBench
from quantpress.press.compose import CommitContent, aliases_of, content_of
from quantpress.press.events import Committed, CommittedBeside, Event, Failed, Judged, Noted, Outdated, Unmade, failed
from quantpress.press.format_stages import FormatStages
from quantpress.press.publisher import Publisher, Verifications, verify_variants
from quantpress.press.refresh import Stale
from quantpress.press.waves import Wave, layout, make_wave, refused
from quantpress.record.manifest import Alias
from quantpress.record.report import VariantReport
from quantpress.record.shelf import Shelf
from quantpress.settings import Settings
from quantpress.source.source import Source


@dataclass(frozen=True)
class _Press:
    """What publishing one format needs.

    ``bench`` is what the variants of the format share. An alias is a variant that is not made, because another variant
    holds the same weights.
    """

    bench: FormatBench
    publisher: Publisher
    aliases: list[Alias]

    @property
    def stages(self) -> FormatStages:
        return self.publisher.stages


def prepared(
    plan: FormatPlan, model: Bench, reference: Baseline, coming: Collection[str], stages: FormatStages
) -> FormatBench:
    """Returns the format's bench: calibrates, measures the unquantized model with the format's engine, and gathers what
    the cards will say.

    ``reference`` is what transformers measured of the unquantized model. ``coming`` are the repos of other formats that
    the same press makes.
    """
    job = stages.calibrate(model, plan)
    base = stages.baseline(model, plan, job, reference)
    return FormatBench(model, job, reference, base, stages.context(model, plan, coming))


def judged(waves: Iterable[Wave], base: Baseline, stages: FormatStages) -> Iterator[Event]:
    """Evaluates the variants of each wave and judges them by the gate.

    Yields a :class:`Judged` or an :class:`Unmade` for each variant. Also yields the events of each wave, and a
    :class:`Failed` for each error. ``base`` is what the format's engine measured of the unquantized model.
    """
    for wave in waves:
        yield from wave.events
        for planned in wave.variants:
            made = wave.made.get(planned.variant.name)
            if made is None:
                yield Unmade(planned)
                continue
            try:
                evaluation = stages.evaluate(wave.bench, planned, made, base)
                entry = stages.gate(wave.bench, planned, made, evaluation, base)
            except QuantpressError as error:
                yield failed(planned, error)
                yield Unmade(planned)
            else:
                yield Judged(planned, made, entry)


def press_format(
    plan: FormatPlan, model: Bench, reference: Baseline, coming: Collection[str], stages: FormatStages
) -> Iterator[Event]:
    """Presses the planned variants of one format. ``reference`` is what transformers measured of the unquantized model.
    ``coming`` are the repos of other formats that the same press makes.

    The function first handles the published variants whose weights the plan keeps. If the source's tensors have changed
    since such a variant was made, it is quantized again after all, with the variants that the plan presses. Tensors can
    change even if the source's weight files stay the same, because some tensors depend on config.json. Raises
    :class:`QuantpressError` for an error that stops the whole format.
    """
    bench = prepared(plan, model, reference, coming, stages)
    press = _Press(bench, Publisher(model.source, model.settings, bench.context, stages), [])
    on_the_shelf = judged(_on_the_shelf(plan, model, stages), bench.base, stages)
    found, stale = yield from _bring_out(on_the_shelf, plan, press, Verifications())
    if stale:
        plan = plan.pressing(stale)
        press = replace(press, bench=replace(bench, job=stages.calibrate(model, plan)))
    order, quantized = layout(plan, press.bench.job, model, model.settings.disk_budget, stages)
    yield from refused(plan, order)
    press = replace(press, aliases=aliases_of(plan, order))
    if press.aliases and not order.waves:
        yield from _publish(plan, [], press, Verifications())
    planned = {each.variant.name: each for each in plan.to_press}

    stopped = threading.Event()

    def make(wave: list[VariantPlan], bench: Bench) -> Wave:
        if stopped.is_set():
            return Wave([], {}, bench)
        shelf = stages.read_again(plan, model.settings).shelf
        rest = [each for each in wave if not _is_there(each, plan.shelf, shelf)]
        return replace(make_wave(rest, bench, stages), variants=wave)

    waves = quantized([[planned[name] for name in names] for names in order.waves], model, make)
    try:
        found, _ = yield from _bring_out(judged(waves, bench.base, stages), plan, press, found)
    except QuantpressError:
        # Report the events of the wave that is being made now, and begin no other wave.
        stopped.set()
        for wave in waves:
            yield from wave.events
        raise
    press.publisher.commit_verifications(plan, found)


def press_cards(plan: FormatPlan, source: Source, settings: Settings, stages: FormatStages) -> Iterator[Event]:
    """Verifies published variants of a format, and updates the repo's cards. Makes no variant.

    First verifies the variants that were found faulty, and those that were not verified because a press was killed.
    Then renders all cards of the repo again, with the source's current record. Commits the cards if they are outdated,
    or if the verification found something new.
    """
    variants = [(each.variant.name, each.variant.branch) for each in plan.to_verify]
    found, wrong = verify_variants(plan, variants, settings, stages)
    yield from (Failed("", line) for line in wrong)
    context, missing = stages.published_context(plan, source, settings)
    if missing:
        yield Noted(missing)
    publisher = Publisher(source, settings, context, stages)
    commit = publisher.commit_cards if plan.cards_outdated else publisher.commit_verifications
    if commit(plan, found):
        yield CommittedBeside(f"cards of {plan.repo_id}")


def _on_the_shelf(plan: FormatPlan, model: Bench, stages: FormatStages) -> Iterator[Wave]:
    """Yields a wave for each published variant whose weights stay. Downloads a variant only when its turn comes. Some
    variants get new metadata, and the others are only measured again."""
    for each in [*plan.to_refresh, *plan.to_evaluate]:
        try:
            found = stages.fetch_again(model, plan, each)
            made = stages.renew(model, plan, each, found) if each.step.action == "refresh" else found
        except QuantpressError as error:
            yield Wave([], {}, model, [failed(each, error)])
        else:
            if isinstance(made, Stale):
                yield Wave([], {}, model, [Outdated(each, plan.repo_id, made.reason)])
            else:
                yield Wave([each], {each.variant.name: made}, model)


def _bring_out(
    events: Iterable[Event], plan: FormatPlan, press: _Press, found: Verifications
) -> Generator[Event, None, tuple[Verifications, dict[str, str]]]:
    """Commits and verifies each variant that was judged, and removes the variant's files from the disk.

    ``found`` are the results of earlier verifications that no commit has recorded yet. Returns the results that are
    still not recorded at the end. Also returns a dict from variant to reason. It holds the variants that must be
    quantized again although the plan kept their weights.
    """
    model = press.bench.model
    stale: dict[str, str] = {}
    for event in events:
        match event:
            case Judged(planned):
                rows = yield from _publish(plan, [event], press, found)
                model.workspace.remove_variant(planned.recipe)
                if rows:  # without rows nothing was committed, so ``found`` must wait for the next commit
                    new = [(row.variant, row.branch) for row in rows if row.status == "published"]
                    found, wrong = verify_variants(plan, new, model.settings, press.stages)
                    yield from (Failed("", line) for line in wrong)
            case Unmade(planned):
                model.workspace.remove_files(planned.recipe)
            case Outdated(planned, _, reason):
                stale[planned.variant.name] = reason
                yield event
            case _:
                yield event
    return found, stale


def _is_there(planned: VariantPlan, when_planned: Shelf, shelf: Shelf) -> bool:
    """Whether another press has put the variant on record since the plan was made.

    ``when_planned`` is what the repo held when the plan was made. ``shelf`` is what the repo holds now.
    """
    name, branch = planned.variant.name, planned.variant.branch
    entry = shelf.entry(name, branch)
    return (
        entry is not None
        and entry != when_planned.entry(name, branch)
        and entry.fingerprint == planned.recipe.fingerprint
    )


def _publish(
    plan: FormatPlan, variants: list[Judged], press: _Press, found: Verifications
) -> Generator[Event, None, list[VariantReport]]:
    """Commits the variants that the repo does not hold yet. The commit also records ``found``, the results of the
    verification after the previous commit. Returns one row for each variant that was committed."""
    record = press.publisher.source.record
    made = {each.planned.variant.name: each.made for each in variants}

    def content_now(now: FormatPlan) -> tuple[CommitContent, str] | None:
        new = [each.entry for each in variants if not now.shelf.holds(each.entry)]
        if variants and not new:
            return None  # another press has published all these variants
        content = found.onto(content_of(plan, press.bench, new, made, press.aliases))
        origin = f"{record.repo}@{record.sha[:8]}"
        if not new:
            return content, f"Record aliases of published variants (source: {origin})"
        names = ", ".join(entry.variant for entry in new)
        return content, f"{'Press' if content.folders else 'Measure'} {names} from {origin}"

    done = press.publisher.commit(plan, content_now)
    if done is None:
        return []
    composed, heads = done
    plotted = heads["main"] if any(plot.name == PERPLEXITY_PLOT for plot in composed.plots) else None
    yield Committed(plan.repo_id, composed.rows, plotted)
    return composed.rows
