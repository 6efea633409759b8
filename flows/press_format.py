"""One format of a model: calibrate once, quantize wave by wave, and of each wave evaluate, gate, publish and verify
variant by variant.

A variant that fails is left out and reported; the others go on. What is on the Hub leaves the disk at once, so that
no more than a wave's variants lie there; where there are cores enough, the next wave is quantized meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from flows import format_stages as stages
from flows.artifacts import show_plot
from flows.checking import Checked, check, commit_checked
from flows.committing import commit_composed
from flows.format_stages import Composed
from flows.stage import StageFailed
from flows.waves import Wave, layout, make_wave
from quantizers import quantizer_of
from quantizers.protocol import Job
from quantpress.card.context import CardContext
from quantpress.evaluation.base import Baseline
from quantpress.evaluation.plots.draw import PERPLEXITY_PLOT
from quantpress.plan.steps import FormatPlan, VariantPlan
from quantpress.press import stages as press
from quantpress.press.compose import Pressed
from quantpress.press.refresh import Stale
from quantpress.press.shared_files import shared_files
from quantpress.record.manifest import Alias, Entry
from quantpress.record.names import comparison_repo, model_name
from quantpress.record.published import Published
from quantpress.record.report import VariantReport
from quantpress.settings import Settings
from quantpress.source.source import Source, chat_template


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


def press_format(
    source: Source,
    plan: FormatPlan,
    bench: press.Bench,
    settings: Settings,
    reference: Baseline,
    siblings: dict[str, str],
    failures: list[str],
) -> list[VariantReport]:
    """Presses what is to be made of one format; adds a line to ``failures`` for each variant that failed.

    What is published comes first, for that shows which variants must be quantized although the source's weights did not
    change.
    """
    job = stages.calibrate(bench, plan, settings)
    base = stages.format_baseline(bench, plan, job, reference)
    around = Around(source, bench, settings, job, reference, base, siblings, [])
    stale: dict[str, str] = {}
    rows, checked = _bring_out(
        _published_before(plan, bench, settings, stale, failures), plan, around, Checked(), failures
    )
    if stale:
        plan = plan.pressing(stale)
        around = replace(around, job=stages.calibrate(bench, plan, settings))
    order, quantized = layout(plan, around.job, bench, settings.disk_budget)
    failures += [f"{source.record.repo} {plan.format} {name}: {reason}" for name, reason in order.refused.items()]
    planned = {each.variant.name: each for each in plan.to_press}
    aliases = [
        Alias(recipe=planned[name].recipe, fingerprint=planned[name].recipe.fingerprint, same_as=other)
        for name, other in order.aliases.items()
    ]
    around = replace(around, aliases=aliases)
    if aliases and not order.waves:
        _publish(plan, [], {}, around, Checked())

    def make(wave: list[VariantPlan], bench: press.Bench) -> dict[str, press.Made]:
        now = stages.published_now(plan, settings).published
        return make_wave([each for each in wave if not _is_there(each, plan.published, now)], bench, failures)

    waves = [[planned[name] for name in names] for names in order.waves]
    pressed, checked = _bring_out(quantized(waves, bench, make), plan, around, checked, failures)
    commit_checked(plan, source, settings, checked, card_context(plan, around), bench.workspace)
    return rows + pressed


def _bring_out(
    waves: Iterable[Wave], plan: FormatPlan, around: Around, checked: Checked, failures: list[str]
) -> tuple[list[VariantReport], Checked]:
    """Evaluates, gates, publishes and verifies the variants of each wave. Returns the rows of what was published, and
    what was verified and is not on record yet, as ``checked`` was before."""
    rows: list[VariantReport] = []
    for wave in waves:
        for each in wave.variants:
            entry = _measure(each, wave, around, failures)
            if entry is None:
                around.bench.workspace.remove_files(each.recipe)
            else:
                published = _publish(plan, [entry], wave.made, around, checked)
                rows += published
                around.bench.workspace.remove_variant(each.recipe)
                if published:  # else nothing was committed, and what was verified before is not on record yet
                    new = [(row.variant, row.branch) for row in published if row.status == "published"]
                    checked = check(plan, new, around.settings, failures)
    return rows, checked


def _published_before(
    plan: FormatPlan, bench: press.Bench, settings: Settings, stale: dict[str, str], failures: list[str]
) -> Iterator[Wave]:
    """Each variant whose weights stay: those whose metadata is made anew, and those that are only measured again. One
    whose weights cannot stay is added to ``stale``, with the reason."""
    for each in [*plan.to_refresh, *plan.to_evaluate]:
        try:
            found = stages.fetch_again(bench, plan, each, settings)
            made = stages.refresh(bench, plan, each, found) if each.step.action == "refresh" else found
        except StageFailed as error:
            failures.append(f"{each.recipe.source} {each.recipe.format} {each.variant.name}: {error}")
        else:
            if isinstance(made, Stale):
                stale[each.variant.name] = made.reason
            else:
                yield Wave([each], {each.variant.name: made}, bench)


def _is_there(planned: VariantPlan, before: Published, now: Published) -> bool:
    """Whether another press has published the variant since the plan was made."""
    name, branch = planned.variant.name, planned.variant.branch
    entry = now.entry(name, branch)
    return entry is not None and entry != before.entry(name, branch) and entry.fingerprint == planned.recipe.fingerprint


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
    plan: FormatPlan, entries: list[Entry], made: dict[str, press.Made], around: Around, checked: Checked
) -> list[VariantReport]:
    """Commits what of the entries the repo does not hold yet; ``checked`` is what was verified after the commit before.
    Returns the rows of what was committed."""

    def compose(now: FormatPlan) -> Composed | None:
        new = [entry for entry in entries if not now.published.holds(entry)]
        if entries and not new:
            return None  # another press published them too
        pressed = checked.onto(_pressed(plan, new, made, around))
        what = "Press" if pressed.folders else "Measure" if new else "Name aliases of"
        names = ", ".join(entry.variant for entry in new) or "what is published"
        message = f"{what} {names} from {around.source.record.repo}@{around.source.record.sha[:8]}"
        return stages.card(now, around.source, pressed, card_context(plan, around), around.bench.workspace, message)

    composed, heads = commit_composed(plan, around.source, around.settings, compose)
    if composed is None:
        return []
    if any(plot.name == PERPLEXITY_PLOT for plot in composed.plots):
        show_plot(around.settings.target_endpoint, plan.repo_id, heads["main"])
    return composed.rows


def card_context(plan: FormatPlan, around: Around) -> CardContext:
    return CardContext(
        repo_id=plan.repo_id,
        branch="main",
        quantized_by=around.settings.namespace,
        chat_template=chat_template(around.bench.workspace.source),
        siblings=around.siblings,
        comparison=comparison_repo(around.settings.namespace, model_name(around.source.record.repo)),
        target_endpoint=around.settings.target_endpoint,
        source_endpoint=around.settings.source_endpoint,
        source_bytes=around.source.weight_bytes,
    )


def _pressed(plan: FormatPlan, entries: list[Entry], made: dict[str, press.Made], around: Around) -> Pressed:
    chosen = quantizer_of(plan.variants[0].variant)
    baselines = [around.reference.evaluation]
    if around.base is not around.reference:
        baselines.append(around.base.evaluation)
    measured_again = {each.variant.name for each in plan.to_evaluate}
    folders = {entry.variant: made[entry.variant].files for entry in entries if entry.variant not in measured_again}
    shared = shared_files(chosen, around.job)
    return Pressed(entries, around.aliases, folders, shared, baselines, chosen.tools())
