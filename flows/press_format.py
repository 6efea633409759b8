"""One format of a model: calibrate once, quantize wave by wave, and of each wave evaluate, gate, publish and verify
variant by variant.

A variant that fails is left out and reported; the others go on. What is on the Hub leaves the disk at once, so that
no more than a wave's variants lie there; where there are cores enough, the next wave is quantized meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from flows import format_stages
from flows.artifacts import show_plot
from flows.committing import commit_composed
from flows.format_stages import Composed
from flows.stage import StageFailed
from flows.verification import Verifications, commit_verifications, verify_variants
from flows.waves import Wave, layout, make_wave
from quantizers import quantizer_of
from quantpress.card.context import CardContext
from quantpress.evaluation.base import Baseline
from quantpress.evaluation.plots.draw import PERPLEXITY_PLOT
from quantpress.plan.steps import FormatPlan, VariantPlan
from quantpress.press import stages
from quantpress.press.bench import Bench, FormatBench
from quantpress.press.compose import CommitContent
from quantpress.press.refresh import Stale
from quantpress.press.shared_files import shared_files
from quantpress.record.manifest import Alias, Entry
from quantpress.record.names import comparison_repo, model_name
from quantpress.record.report import VariantReport
from quantpress.record.shelf import Shelf
from quantpress.source.source import chat_template


def press_format(
    plan: FormatPlan, model: Bench, reference: Baseline, siblings: dict[str, str], failures: list[str]
) -> list[VariantReport]:
    """Presses what is to be made of one format; adds a line to ``failures`` for each variant that failed.

    What is published comes first, for that shows which variants must be quantized although the source's weights did not
    change.
    """
    job = format_stages.calibrate(model, plan)
    bench = FormatBench(model, job, reference, format_stages.format_baseline(model, plan, job, reference), siblings)
    stale: dict[str, str] = {}
    rows, found = _bring_out(_on_the_shelf(plan, model, stale, failures), plan, bench, Verifications(), failures)
    if stale:
        plan = plan.pressing(stale)
        bench = replace(bench, job=format_stages.calibrate(model, plan))
    order, quantized = layout(plan, bench.job, model, model.settings.disk_budget)
    repo = model.source.record.repo
    failures += [f"{repo} {plan.format} {name}: {reason}" for name, reason in order.refused.items()]
    planned = {each.variant.name: each for each in plan.to_press}
    aliases = tuple(
        Alias(recipe=planned[name].recipe, fingerprint=planned[name].recipe.fingerprint, same_as=other)
        for name, other in order.aliases.items()
    )
    bench = replace(bench, aliases=aliases)
    if aliases and not order.waves:
        _publish(plan, [], {}, bench, Verifications())

    def make(wave: list[VariantPlan], model: Bench) -> dict[str, stages.Made]:
        shelf = format_stages.read_again(plan, model.settings).shelf
        return make_wave([each for each in wave if not _is_there(each, plan.shelf, shelf)], model, failures)

    waves = [[planned[name] for name in names] for names in order.waves]
    new, found = _bring_out(quantized(waves, model, make), plan, bench, found, failures)
    commit_verifications(plan, model.source, model.settings, found, card_context(plan, bench), model.workspace)
    return rows + new


def _bring_out(
    waves: Iterable[Wave], plan: FormatPlan, bench: FormatBench, found: Verifications, failures: list[str]
) -> tuple[list[VariantReport], Verifications]:
    """Evaluates, gates, publishes and verifies the variants of each wave. Returns the rows of what was published, and
    what was verified and is not on record yet, as ``found`` was before."""
    rows: list[VariantReport] = []
    for wave in waves:
        for each in wave.variants:
            entry = _measure(each, wave, bench, failures)
            if entry is None:
                bench.model.workspace.remove_files(each.recipe)
            else:
                published = _publish(plan, [entry], wave.made, bench, found)
                rows += published
                bench.model.workspace.remove_variant(each.recipe)
                if published:  # else nothing was committed, and what was verified before is not on record yet
                    new = [(row.variant, row.branch) for row in published if row.status == "published"]
                    found = verify_variants(plan, new, bench.model.settings, failures)
    return rows, found


def _on_the_shelf(plan: FormatPlan, model: Bench, stale: dict[str, str], failures: list[str]) -> Iterator[Wave]:
    """Each variant whose weights stay: those whose metadata is made anew, and those that are only measured again. One
    whose weights cannot stay is added to ``stale``, with the reason."""
    for each in [*plan.to_refresh, *plan.to_evaluate]:
        try:
            found = format_stages.fetch_again(model, plan, each)
            made = format_stages.refresh(model, plan, each, found) if each.step.action == "refresh" else found
        except StageFailed as error:
            failures.append(f"{each.recipe.source} {each.recipe.format} {each.variant.name}: {error}")
        else:
            if isinstance(made, Stale):
                stale[each.variant.name] = made.reason
            else:
                yield Wave([each], {each.variant.name: made}, model)


def _is_there(planned: VariantPlan, when_planned: Shelf, shelf: Shelf) -> bool:
    """Whether another press has published the variant since the plan was made."""
    name, branch = planned.variant.name, planned.variant.branch
    entry = shelf.entry(name, branch)
    return (
        entry is not None
        and entry != when_planned.entry(name, branch)
        and entry.fingerprint == planned.recipe.fingerprint
    )


def _measure(planned: VariantPlan, wave: Wave, bench: FormatBench, failures: list[str]) -> Entry | None:
    made = wave.made.get(planned.variant.name)
    if made is None:
        return None
    try:
        evaluation = format_stages.evaluate(wave.bench, planned, made, bench.base)
        return format_stages.gate(wave.bench, planned, made, evaluation, bench.base)
    except StageFailed as error:
        failures.append(f"{planned.recipe.source} {planned.recipe.format} {planned.variant.name}: {error}")
        return None


def _publish(
    plan: FormatPlan, entries: list[Entry], made: dict[str, stages.Made], bench: FormatBench, found: Verifications
) -> list[VariantReport]:
    """Commits what of the entries the repo does not hold yet; ``found`` is what was verified after the commit before.
    Returns the rows of what was committed."""
    source = bench.model.source

    def compose(now: FormatPlan) -> Composed | None:
        new = [entry for entry in entries if not now.shelf.holds(entry)]
        if entries and not new:
            return None  # another press published them too
        content = found.onto(_content(plan, new, made, bench))
        what = "Press" if content.folders else "Measure" if new else "Name aliases of"
        names = ", ".join(entry.variant for entry in new) or "what is published"
        message = f"{what} {names} from {source.record.repo}@{source.record.sha[:8]}"
        return format_stages.card(now, source, content, card_context(plan, bench), bench.model.workspace, message)

    composed, heads = commit_composed(plan, source, bench.model.settings, compose)
    if composed is None:
        return []
    if any(plot.name == PERPLEXITY_PLOT for plot in composed.plots):
        show_plot(bench.model.settings.target_endpoint, plan.repo_id, heads["main"])
    return composed.rows


def card_context(plan: FormatPlan, bench: FormatBench) -> CardContext:
    source, settings = bench.model.source, bench.model.settings
    return CardContext(
        repo_id=plan.repo_id,
        branch="main",
        quantized_by=settings.namespace,
        chat_template=chat_template(bench.model.workspace.source),
        siblings=dict(bench.siblings),
        comparison=comparison_repo(settings.namespace, model_name(source.record.repo)),
        target_endpoint=settings.target_endpoint,
        source_endpoint=settings.source_endpoint,
        source_bytes=source.weight_bytes,
    )


def _content(plan: FormatPlan, entries: list[Entry], made: dict[str, stages.Made], bench: FormatBench) -> CommitContent:
    chosen = quantizer_of(plan.variants[0].variant)
    baselines = [bench.reference.evaluation]
    if bench.base is not bench.reference:
        baselines.append(bench.base.evaluation)
    measured_again = {each.variant.name for each in plan.to_evaluate}
    folders = {entry.variant: made[entry.variant].files for entry in entries if entry.variant not in measured_again}
    shared = shared_files(chosen, bench.job)
    return CommitContent(entries, list(bench.aliases), folders, shared, baselines, chosen.tools())
