"""The flow ``press-model``: one model of the catalog, from its source to its published repositories.

    fetch ─► baseline ─► per format: calibrate ─► quantize ─► evaluate ─► gate ─► card ─► publish ─► verify

A variant that fails is left out and reported; the others go on. A format that fails leaves the others alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Failed

from flows.artifacts import show_plot
from flows.stage import StageFailed, stage
from quantizers import quantizer
from quantizers.protocol import Job
from quantpress import press, publication
from quantpress.card import CardContext
from quantpress.catalog import model_name
from quantpress.catalog_file import load_catalog
from quantpress.errors import QuantpressError
from quantpress.evaluation.plots import PERPLEXITY_PLOT, draw_plots
from quantpress.evaluation.record import Evaluation
from quantpress.gate import require_agreement
from quantpress.hub import hub_client
from quantpress.manifest import Entry
from quantpress.plan import FormatPlan, ModelPlan, VariantPlan, plan_catalog
from quantpress.publication import Pressed
from quantpress.publish import Revision, ensure_repo
from quantpress.publish import publish as commit
from quantpress.report import ModelReport, VariantReport, report_entry
from quantpress.settings import Settings, load_settings
from quantpress.source import Source, chat_template
from quantpress.source import fetch as download
from quantpress.toolchain.llama_cpp import install
from quantpress.toolchain.progress import plain_lines
from quantpress.verify import verify as download_and_check
from quantpress.workspace import require_disk


@flow(name="press-model", flow_run_name="press {repo}")
def press_model(
    repo: str, catalog: str = "catalog.yaml", formats: list[str] | None = None
) -> ModelReport | State[ModelReport]:
    """Presses one model of the catalog; ``formats`` narrows the formats."""
    loaded = load_catalog(Path(catalog))
    settings = load_settings(loaded.settings)
    plan = plan_one(repo, catalog, formats)
    if not plan.has_work:
        return ModelReport(model=repo)
    try:
        report = _press(plan, press.bench(plan, settings), settings)
    except StageFailed as error:
        report = ModelReport(model=repo, failures=[f"{repo}: {error}"])
    if report.failures:
        return Failed(message="\n".join(report.failures), data=report)
    return report


@stage("plan {repo}")
def plan_one(repo: str, catalog: str, formats: list[str] | None) -> ModelPlan:
    """The plan of one model, from the Hubs as they are now."""
    loaded = load_catalog(Path(catalog))
    settings = load_settings(loaded.settings)
    source_hub, target_hub = hub_client(settings.source_endpoint), hub_client(settings.target_endpoint)
    plans = plan_catalog(loaded, settings, source_hub, target_hub, only=repo, formats=formats)
    if not plans:
        raise QuantpressError(f"{repo} is not in {catalog}: add a line for it under 'models'")
    return plans[0]


@stage("fetch {source.record.repo}")
def fetch(source: Source, bench: press.Bench, settings: Settings, needed: int) -> Path:
    """Downloads the source, once there is room for the whole press."""
    require_disk(settings.home, needed)
    return download(hub_client(settings.source_endpoint), source, bench.workspace.source)


@stage("baseline: transformers")
def baseline(bench: press.Bench) -> press.Baseline:
    """Measures the unquantized model with transformers, the reference for every other engine."""
    return press.evaluate_unquantized(bench, "transformers", bench.workspace.source)


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


@stage("{planned.variant.format}: quantize {planned.variant.name}")
def quantize(bench: press.Bench, planned: VariantPlan) -> press.Made:
    """Makes one variant's files."""
    return press.quantize(bench, planned)


@stage("{planned.variant.format}: evaluate {planned.variant.name}")
def evaluate(bench: press.Bench, planned: VariantPlan, made: press.Made, base: press.Baseline) -> Evaluation:
    """Measures one variant."""
    return press.evaluate(bench, planned, made, base)


@stage("{planned.variant.format}: gate {planned.variant.name}")
def gate(planned: VariantPlan, made: press.Made, evaluation: Evaluation, base: press.Baseline) -> Entry:
    """Judges one variant."""
    return press.gate(planned, made, evaluation, base)


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
    names = ", ".join(row.variant for row in composed.rows)
    message = f"Press {names} from {source.record.repo}@{source.record.sha[:8]}"
    return {revision.branch: commit(api, plan.repo_id, revision, heads, message) for revision in composed.revisions}


@stage("{repo_id}: verify {branch}")
def verify(repo_id: str, branch: str, settings: Settings) -> int:
    """Downloads what was published into an empty cache and compares it with the manifest."""
    checked = download_and_check(hub_client(settings.target_endpoint), repo_id, branch)
    problems = [f"{file.path} {file.problem}" for file in checked if file.problem]
    if problems:
        raise QuantpressError(f"{repo_id}@{branch}: {'; '.join(problems)}")
    return len(checked)


def _press(plan: ModelPlan, bench: press.Bench, settings: Settings) -> ModelReport:
    assert plan.source is not None
    fetch(plan.source, bench, settings, plan.disk_needed)
    reference = baseline(bench)
    rows: list[VariantReport] = []
    failures: list[str] = []
    for each in plan.formats:
        if not each.to_press:
            continue
        try:
            siblings = {other.format: other.repo_id for other in plan.formats if other is not each}
            rows += _press_format(plan.source, each, bench, settings, reference, siblings, failures)
        except StageFailed as error:
            failures.append(f"{plan.source.record.repo} {each.format}: {error}")
    if not failures:
        bench.workspace.remove_work()
    return ModelReport(model=plan.source.record.repo, variants=rows, failures=failures)


def _press_format(
    source: Source,
    plan: FormatPlan,
    bench: press.Bench,
    settings: Settings,
    reference: press.Baseline,
    siblings: dict[str, str],
    failures: list[str],
) -> list[VariantReport]:
    log = get_run_logger()
    chosen = quantizer(plan.format)
    if chosen.engine == "llama.cpp":
        toolchain()
    job = calibrate(bench, plan)
    base = format_baseline(bench, plan, job, reference)
    entries: list[Entry] = []
    folders: dict[str, Path] = {}
    for position, planned in enumerate(plan.to_press, 1):
        name = planned.variant.name
        log.info("%s %s: %d of %d", plan.format, name, position, len(plan.to_press))
        try:
            made = quantize(bench, planned)
            entries.append(gate(planned, made, evaluate(bench, planned, made, base), base))
            folders[name] = made.files
        except StageFailed as error:
            failures.append(f"{source.record.repo} {plan.format} {name}: {error}")
    if not entries:
        raise StageFailed("no variant could be made; nothing was published")
    baselines = [reference.evaluation] if base is reference else [reference.evaluation, base.evaluation]
    pressed = Pressed(entries, folders, chosen.shared_files(job), baselines, chosen.tools())
    composed = card(plan, source, bench, pressed, siblings, settings)
    heads = publish(composed, source, settings)
    for branch in heads:
        verify(plan.repo_id, branch, settings)
    if any(plot.name == PERPLEXITY_PLOT for plot in composed.plots):
        show_plot(settings.target_endpoint, plan.repo_id, heads["main"])
    return composed.rows
