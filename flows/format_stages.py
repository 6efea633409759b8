"""The stages of one format as Prefect tasks; :mod:`flows.press_format` orders them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from prefect import get_run_logger

from flows.stage import stage
from quantizers import quantizer
from quantizers.protocol import Job, Layout
from quantpress.card.context import CardContext, gather_context
from quantpress.evaluation.base import Baseline
from quantpress.evaluation.plots.draw import draw_plots
from quantpress.gate.judge import require_agreement
from quantpress.hub.hubs import hubs, target_hub
from quantpress.machine.workspace import Workspace
from quantpress.plan.steps import FormatPlan, VariantPlan
from quantpress.press import compose, stages
from quantpress.press.bench import Bench
from quantpress.press.compose import CommitContent
from quantpress.press.refresh import Stale, fetch_published, keeps_costly, retrieve_costly
from quantpress.press.refresh import refresh as renew_metadata
from quantpress.publish.commit import BranchCommit, Outrun, publish_format
from quantpress.record.manifest import Entry
from quantpress.record.measurement import Evaluation
from quantpress.record.names import model_name
from quantpress.record.report import VariantReport, report_entry
from quantpress.record.shelf import read_shelf
from quantpress.record.verification import Verification
from quantpress.settings import Settings
from quantpress.source.source import Source
from quantpress.toolchain.llama_cpp import install
from quantpress.toolchain.progress import plain_lines
from quantpress.verify.loading import Loader
from quantpress.verify.verify import verify as download_and_check


@stage("toolchain: llama.cpp")
def toolchain() -> str:
    """Finds the llama.cpp tools, or builds them once, which takes minutes; returns their version."""
    log = get_run_logger()
    return install(plain_lines(log.info)).version


@stage("{plan.format}: check")
def check(bench: Bench, plan: FormatPlan) -> None:
    """Looks whether the format can be made of this source, before anything costly."""
    first = plan.to_make[0]
    stages.check(bench, first.variant, first.recipe)


@stage("{plan.format}: calibrate")
def calibrate(bench: Bench, plan: FormatPlan) -> Job:
    """Makes what all variants of the format share; what of it is published and costly is downloaded.

    It is made for the first variant of the ladder, published or not: a run that goes on after some were published finds
    what the run before it made.
    """
    shared = plan.to_make[0].recipe.preparation_fingerprint
    first = next(each for each in plan.variants if each.recipe.preparation_fingerprint == shared)
    hub = target_hub(bench.settings)
    return stages.prepare(
        bench,
        first.variant,
        first.recipe,
        lambda job: retrieve_costly(hub, plan, job),
        keeps_costly=keeps_costly(plan),
    )


@stage("{plan.format}: baseline")
def format_baseline(bench: Bench, plan: FormatPlan, job: Job, reference: Baseline) -> Baseline:
    """Measures the unquantized model with the format's engine; it must agree with the reference."""
    chosen = quantizer(plan.format)
    if chosen.engine != "llama.cpp":
        return reference  # every other engine loads the checkpoint folder that transformers measured
    measured = stages.evaluate_unquantized(bench, chosen.engine, chosen.unquantized(job), reference)
    require_agreement(reference.evaluation, measured.evaluation)
    return measured


@stage("{plan.format}: layout")
def layout(plan: FormatPlan, job: Job, budget: int | None) -> Layout:
    """Divides the variants to be made into waves whose files take at most ``budget`` bytes (None: any)."""
    variants = [planned.variant for planned in plan.to_press]
    return quantizer(plan.format).layout(job, variants, [each.variant for each in plan.standing], budget)


@stage("{wave[0].variant.format}: quantize wave of {wave[0].variant.name}")
def quantize_wave(bench: Bench, wave: list[VariantPlan]) -> list[stages.Made]:
    """Makes the variants of a wave at once."""
    return stages.quantize_wave(bench, wave)


@stage("{planned.variant.format}: quantize {planned.variant.name}")
def quantize(bench: Bench, planned: VariantPlan) -> stages.Made:
    """Makes one variant's files."""
    return stages.quantize(bench, planned)


@stage("{planned.variant.format}: fetch {planned.variant.name}")
def fetch_again(bench: Bench, plan: FormatPlan, planned: VariantPlan) -> stages.Made:
    """Downloads a published variant, to be measured again or given new metadata."""
    return fetch_published(target_hub(bench.settings), bench, plan, planned)


@stage("{planned.variant.format}: refresh {planned.variant.name}")
def refresh(bench: Bench, plan: FormatPlan, planned: VariantPlan, published: stages.Made) -> stages.Made | Stale:
    """Gives a published variant the source's metadata as it is now, unless the source holds other tensors now."""
    entry = plan.shelf.entry(planned.variant.name, planned.variant.branch)
    assert entry is not None
    renewed = renew_metadata(bench, planned, published, entry.recipe.source_sha)
    if isinstance(renewed, Stale):
        name = f"{planned.variant.name} of {plan.repo_id}"
        get_run_logger().warning("%s is quantized, new metadata is not enough: %s", name, renewed.reason)
    return renewed


@stage("{planned.variant.format}: evaluate {planned.variant.name}")
def evaluate(bench: Bench, planned: VariantPlan, made: stages.Made, base: Baseline) -> Evaluation:
    """Measures one variant."""
    return stages.evaluate(bench, planned, made, base)


@stage("{planned.variant.format}: gate {planned.variant.name}")
def gate(bench: Bench, planned: VariantPlan, made: stages.Made, evaluation: Evaluation, base: Baseline) -> Entry:
    """Judges one variant."""
    return stages.gate(bench, planned, made, evaluation, base)


@dataclass(frozen=True)
class Composed:
    """Everything that the commits of one format will hold, and what they are called."""

    plan: FormatPlan
    commits: list[BranchCommit]
    rows: list[VariantReport]
    plots: list[Path]
    message: str


@stage("{plan.format}: card")
def card(
    plan: FormatPlan, source: Source, content: CommitContent, context: CardContext, workspace: Workspace, message: str
) -> Composed:
    """Writes manifest, cards, plots and sums, to be committed with ``message``."""
    repo, folder = source.record.repo, workspace.work / plan.format / "plots"
    without_plots = compose.compose_manifest(plan, model_name(repo), source.record, content, [])
    plots = draw_plots(without_plots, folder)
    manifest = compose.compose_manifest(plan, model_name(repo), source.record, content, plots)
    commits = compose.compose_commits(plan, manifest, content, plots, context)
    rows = [report_entry(repo, plan.repo_id, entry) for entry in content.entries]
    return Composed(plan, commits, rows, plots, message)


@stage("{plan.format}: card context")
def published_context(plan: FormatPlan, source: Source, settings: Settings) -> CardContext:
    """What the cards of a repo say beside its manifest, where no source is on disk."""
    manifest = plan.shelf.manifest
    assert manifest is not None, f"{plan.repo_id} has no cards"
    manifest = manifest.model_copy(update={"source": source.record})
    context, missing = gather_context(manifest, plan.repo_id, settings, hubs(settings))
    if missing:
        get_run_logger().warning("%s", missing)
    return context


@stage("{plan.format}: read {plan.repo_id}")
def read_again(plan: FormatPlan, settings: Settings) -> FormatPlan:
    """The plan with the target repo as it is at this moment."""
    return replace(plan, shelf=read_shelf(target_hub(settings), plan.repo_id))


@stage("{composed.plan.format}: publish {composed.plan.repo_id}")
def publish(composed: Composed, source: Source, settings: Settings) -> dict[str, str] | None:
    """Commits each branch; returns branch to commit sha, or None where another press was faster."""
    api, shelf = target_hub(settings), composed.plan.shelf
    try:
        return publish_format(api, shelf, composed.commits, source.record, settings.private, composed.message)
    except Outrun as error:
        get_run_logger().warning("%s", error)
        return None


@stage("{repo_id}: verify {branch}")
def verify(repo_id: str, branch: str, new: list[str], settings: Settings) -> Verification:
    """Downloads what was published into an empty cache, compares it with the manifest, loads the ``new`` variants."""
    loader = Loader(settings.compute_device(), settings.thread_count(), frozenset(new))
    found = download_and_check(target_hub(settings), repo_id, branch, loader, settings.home)
    for problem in found.problems:
        get_run_logger().error("%s@%s: %s", repo_id, branch, problem)
    return found
