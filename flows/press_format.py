"""One format of a model: calibrate once, then wave by wave quantize, evaluate, gate, publish and verify.

A variant that fails is left out and reported; the others go on. What a wave made is on the Hub before the next
wave needs the disk.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from prefect import get_run_logger

from flows.artifacts import show_plot
from flows.stage import StageFailed, stage
from quantizers import quantizer
from quantizers.protocol import Job, Layout
from quantpress import press, publication
from quantpress.card import CardContext
from quantpress.catalog import model_name
from quantpress.errors import QuantpressError
from quantpress.evaluation.plots import PERPLEXITY_PLOT, draw_plots
from quantpress.evaluation.record import Evaluation
from quantpress.gate import require_agreement
from quantpress.hub import hub_client
from quantpress.manifest import Alias, Entry
from quantpress.plan import FormatPlan, VariantPlan
from quantpress.publication import Pressed
from quantpress.publish import Revision, ensure_repo
from quantpress.publish import publish as commit
from quantpress.published import read_published
from quantpress.report import VariantReport, report_entry
from quantpress.settings import Settings
from quantpress.source import Source, chat_template
from quantpress.toolchain.llama_cpp import install
from quantpress.toolchain.progress import plain_lines
from quantpress.verify import Loader
from quantpress.verify import verify as download_and_check


@stage("toolchain: llama.cpp")
def toolchain() -> str:
    """Finds the llama.cpp tools, or builds them once, which takes minutes; returns their version."""
    log = get_run_logger()
    return install(plain_lines(log.info)).version


@stage("{plan.format}: calibrate")
def calibrate(bench: press.Bench, plan: FormatPlan) -> Job:
    """Makes what all variants of the format share."""
    first = plan.to_press[0]
    return press.prepare(bench, first.variant, first.recipe)


@stage("{plan.format}: baseline")
def format_baseline(bench: press.Bench, plan: FormatPlan, job: Job, reference: press.Baseline) -> press.Baseline:
    """Measures the unquantized model with the format's engine; it must agree with the reference."""
    chosen = quantizer(plan.format)
    if chosen.engine == "transformers":
        return reference
    measured = press.evaluate_unquantized(bench, chosen.engine, chosen.unquantized(job))
    require_agreement(reference.evaluation, measured.evaluation)
    return measured


@stage("{plan.format}: layout")
def layout(plan: FormatPlan, job: Job, settings: Settings) -> Layout:
    """Divides the variants to be made into waves that fit the disk budget."""
    variants = [planned.variant for planned in plan.to_press]
    return quantizer(plan.format).layout(job, variants, settings.disk_budget)


@stage("{wave[0].variant.format}: quantize wave of {wave[0].variant.name}")
def quantize_wave(bench: press.Bench, wave: list[VariantPlan]) -> list[press.Made]:
    """Makes the variants of a wave at once."""
    return press.quantize_wave(bench, wave)


@stage("{planned.variant.format}: quantize {planned.variant.name}")
def quantize(bench: press.Bench, planned: VariantPlan) -> press.Made:
    """Makes one variant's files."""
    return press.quantize(bench, planned)


@stage("{planned.variant.format}: evaluate {planned.variant.name}")
def evaluate(bench: press.Bench, planned: VariantPlan, made: press.Made, base: press.Baseline) -> Evaluation:
    """Measures one variant."""
    return press.evaluate(bench, planned, made, base)


@stage("{planned.variant.format}: gate {planned.variant.name}")
def gate(
    bench: press.Bench, planned: VariantPlan, made: press.Made, evaluation: Evaluation, base: press.Baseline
) -> Entry:
    """Judges one variant."""
    return press.gate(bench, planned, made, evaluation, base)


@dataclass(frozen=True)
class Composed:
    """Everything that the commits of one format will hold."""

    plan: FormatPlan
    revisions: list[Revision]
    rows: list[VariantReport]
    plots: list[Path]


@stage("{plan.format}: card")
def card(
    plan: FormatPlan,
    source: Source,
    bench: press.Bench,
    pressed: Pressed,
    siblings: dict[str, str],
    settings: Settings,
) -> Composed:
    """Writes manifest, cards, plots and sums; ``siblings`` are the repos of the model's other formats."""
    repo = source.record.repo
    folder = bench.workspace.work / plan.format
    draft = publication.compose_manifest(plan, model_name(repo), source.record, pressed, [])
    plots = draw_plots(draft, folder / "plots")
    manifest = publication.compose_manifest(plan, model_name(repo), source.record, pressed, plots)
    context = CardContext(
        repo_id=plan.repo_id,
        branch="main",
        quantized_by=settings.namespace,
        chat_template=chat_template(bench.workspace.source),
        siblings=siblings,
        target_endpoint=settings.target_endpoint,
        source_endpoint=settings.source_endpoint,
        source_bytes=source.weight_bytes,
    )
    revisions = publication.compose_revisions(plan, manifest, pressed, plots, context)
    return Composed(plan, revisions, [report_entry(repo, plan.repo_id, entry) for entry in pressed.entries], plots)


@stage("{composed.plan.format}: publish {composed.plan.repo_id}")
def publish(composed: Composed, source: Source, settings: Settings) -> dict[str, str]:
    """Commits each branch; returns branch to commit sha."""
    api, plan = hub_client(settings.target_endpoint), composed.plan
    heads = {**ensure_repo(api, plan.repo_id, settings.private), **plan.published.heads}
    names = ", ".join(row.variant for row in composed.rows) or "no file"
    message = f"Press {names} from {source.record.repo}@{source.record.sha[:8]}"
    return {revision.branch: commit(api, plan.repo_id, revision, heads, message) for revision in composed.revisions}


@stage("{repo_id}: verify {branch}")
def verify(repo_id: str, branch: str, new: list[str], settings: Settings) -> int:
    """Downloads what was published into an empty cache, compares it with the manifest, loads the ``new`` variants."""
    loader = Loader(settings.compute_device(), settings.thread_count(), frozenset(new))
    found = download_and_check(hub_client(settings.target_endpoint), repo_id, branch, loader)
    if found.problems:
        raise QuantpressError(f"{repo_id}@{branch}: {'; '.join(found.problems)}")
    return len(found.files)


@dataclass(frozen=True)
class Around:
    """What every wave of a format needs: where it works, and what the cards say beside the wave's variants."""

    source: Source
    bench: press.Bench
    settings: Settings
    job: Job
    reference: press.Baseline
    base: press.Baseline
    siblings: dict[str, str]


def press_format(
    source: Source,
    plan: FormatPlan,
    bench: press.Bench,
    settings: Settings,
    reference: press.Baseline,
    siblings: dict[str, str],
    failures: list[str],
) -> list[VariantReport]:
    """Presses what is to be made of one format; adds a line to ``failures`` for each variant that failed."""
    log = get_run_logger()
    if quantizer(plan.format).engine == "llama.cpp":
        toolchain()
    job = calibrate(bench, plan)
    base = format_baseline(bench, plan, job, reference)
    around = Around(source, bench, settings, job, reference, base, siblings)
    order = layout(plan, job, settings)
    failures += [f"{source.record.repo} {plan.format} {name}: {reason}" for name, reason in order.refused.items()]
    planned = {each.variant.name: each for each in plan.to_press}
    aliases = [
        Alias(recipe=planned[name].recipe, fingerprint=planned[name].recipe.fingerprint, same_as=other)
        for name, other in order.aliases.items()
    ]
    if aliases and not order.waves:
        _publish(plan, [], aliases, {}, around)
    rows: list[VariantReport] = []
    for number, names in enumerate(order.waves, 1):
        log.info("%s: wave %d of %d: %s", plan.format, number, len(order.waves), ", ".join(names))
        wave = [planned[name] for name in names]
        made = _make(wave, bench, failures)
        entries = _measure(wave, made, around, failures)
        if entries:
            rows += _publish(plan, entries, aliases, made, around)
            published = read_published(hub_client(settings.target_endpoint), plan.repo_id)
            plan = replace(plan, published=published)
            bench.workspace.remove_variants([each.recipe for each in wave])
    return rows


def _make(wave: list[VariantPlan], bench: press.Bench, failures: list[str]) -> dict[str, press.Made]:
    """The wave's variants by name; where making them together fails, each is made alone."""
    log = get_run_logger()
    if len(wave) > 1:
        try:
            return {each.variant.name: made for each, made in zip(wave, quantize_wave(bench, wave), strict=True)}
        except StageFailed as error:
            log.warning("making the wave at once failed, each variant is made alone: %s", error)
    found = {}
    for each in wave:
        try:
            found[each.variant.name] = quantize(bench, each)
        except StageFailed as error:
            failures.append(f"{each.recipe.source} {each.recipe.format} {each.variant.name}: {error}")
    return found


def _measure(wave: list[VariantPlan], made: dict[str, press.Made], around: Around, failures: list[str]) -> list[Entry]:
    entries = []
    for each in wave:
        found = made.get(each.variant.name)
        if found is None:
            continue
        try:
            evaluation = evaluate(around.bench, each, found, around.base)
            entries.append(gate(around.bench, each, found, evaluation, around.base))
        except StageFailed as error:
            failures.append(f"{each.recipe.source} {each.recipe.format} {each.variant.name}: {error}")
    return entries


def _publish(
    plan: FormatPlan, entries: list[Entry], aliases: list[Alias], made: dict[str, press.Made], around: Around
) -> list[VariantReport]:
    chosen, settings = quantizer(plan.format), around.settings
    baselines = [around.reference.evaluation]
    if around.base is not around.reference:
        baselines.append(around.base.evaluation)
    folders = {entry.variant: made[entry.variant].files for entry in entries}
    pressed = Pressed(entries, aliases, folders, chosen.shared_files(around.job), baselines, chosen.tools())
    composed = card(plan, around.source, around.bench, pressed, around.siblings, settings)
    heads = publish(composed, around.source, settings)
    for branch in heads:
        verify(plan.repo_id, branch, [entry.variant for entry in entries], settings)
    if any(plot.name == PERPLEXITY_PLOT for plot in composed.plots):
        show_plot(settings.target_endpoint, plan.repo_id, heads["main"])
    return composed.rows
