"""The flow ``press-model``: one model of the catalog, from its source to its published repositories.

    fetch ─► check ─► baseline ─► per format: calibrate ─► quantize ─► evaluate ─► gate ─► card ─► publish ─► verify

A format that fails leaves the others alone.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Failed

from flows import format_stages
from flows.press_cards import press_cards
from flows.press_format import press_format
from flows.stage import StageFailed, stage
from quantizers import quantizer
from quantpress.catalog.reader import load_catalog
from quantpress.comparison.publish import make_comparison_gated, open_comparison, publish_comparison
from quantpress.errors import Refused
from quantpress.evaluation.base import Baseline
from quantpress.hub.client import explained
from quantpress.hub.hubs import hubs, source_hub, target_hub
from quantpress.machine.workspace import Workspace, alone, remove_abandoned_work
from quantpress.plan.make import plan_catalog
from quantpress.plan.steps import FormatPlan, ModelPlan
from quantpress.press import stages
from quantpress.press.bench import Bench
from quantpress.publish.collection import keep_collection
from quantpress.record.report import ModelReport, VariantReport
from quantpress.settings import Settings, load_settings
from quantpress.source.source import Source
from quantpress.source.source import fetch as download
from quantpress.source.weights import WeightsReport


@flow(name="press-model", flow_run_name="press {repo}")
def press_model(
    repo: str, catalog: str = "catalog.yaml", formats: list[str] | None = None, upload_budget: int | None = None
) -> ModelReport | State[ModelReport]:
    """Presses one model of the catalog; ``formats`` narrows the formats, ``upload_budget`` is the model's part of the
    setting."""
    settings = load_settings(load_catalog(Path(catalog)).settings)
    if upload_budget is not None:
        settings = settings.model_copy(update={"upload_budget": upload_budget})
    log = get_run_logger()
    with alone(settings.home, repo, lambda: log.warning("another press works on %s here; waiting for it", repo)):
        try:
            report = _press(plan_one(repo, catalog, formats, settings), settings)
        except StageFailed as error:
            report = ModelReport(model=repo, failures=[f"{repo}: {error}"])
    if report.failures:
        return Failed(message="\n".join(report.failures), data=report)
    return report


@stage("plan {repo}")
def plan_one(repo: str, catalog: str, formats: list[str] | None, settings: Settings) -> ModelPlan:
    """The plan of one model, from the Hubs as they are now."""
    loaded = load_catalog(Path(catalog))
    return plan_catalog(loaded, settings, hubs(settings), only=repo, formats=formats)[0]


@stage("fetch {bench.source.record.repo}")
def fetch(bench: Bench, needed: int) -> Path:
    """Downloads the source, once there is room for what the whole press still needs: some may be there already."""
    bench.workspace.require_disk(needed)
    return download(source_hub(bench.settings), bench.source, bench.workspace.source)


@stage("check {bench.source.record.repo}")
def check(bench: Bench) -> WeightsReport:
    """Reads all weights: a file that is cut off or a NaN ends the model here, whatever its formats."""
    return stages.check_weights(bench)


@stage("gate the comparison of {source.record.repo}")
def make_gated(source: Source, settings: Settings) -> None:
    """Gates the comparison of a source that was gated since."""
    make_comparison_gated(target_hub(settings), settings.namespace, source.record)


@stage("collection of {source.record.repo}")
def collect(source: Source, repo_ids: list[str], settings: Settings) -> list[str]:
    """Keeps the collection of the model in step with those of its repositories that exist, its comparison's too.

    Returns them. A Hub without collections has nothing to be kept.
    """
    hub = target_hub(settings)
    there = []
    with suppress(Refused):  # the comparison's own stage says so
        there.append(open_comparison(hub, settings.namespace, source.record, settings.private))
    with explained(hub.endpoint, f"looking for the repositories of {source.record.repo}"):
        there += [repo_id for repo_id in repo_ids if hub.repo_exists(repo_id)]
    keep_collection(hub, settings.namespace, source.record.repo, there, settings.private)
    return there


@stage("comparison of {source.record.repo}")
def compare(source: Source, collected: list[str], settings: Settings) -> str | None:
    """Publishes the comparison of all that is published of the model; returns its repository if that is a commit.
    ``collected`` goes on record with it."""
    return publish_comparison(target_hub(settings), settings.namespace, source.record, settings.private, collected)


@stage("baseline: transformers")
def baseline(bench: Bench) -> Baseline:
    """Measures the unquantized model with transformers, the reference for every other engine."""
    return stages.measure_base(bench)


def _press(plan: ModelPlan, settings: Settings) -> ModelReport:
    failures: list[str] = []
    rows: list[VariantReport] = []
    committed: list[str] = []
    if plan.source is not None and plan.has_work:
        remove_abandoned_work(settings.home, plan.line.repo, keep=plan.source.record.sha)
        if plan.source.record.gated is not None:
            make_gated(plan.source, settings)
        committed += _press_cards(plan, plan.source, settings, failures)
        if any(each.to_make for each in plan.formats):
            rows = _press_files(plan, settings, failures)
        committed += _bring_together(plan, plan.source, settings)
        if not failures:
            Workspace(settings.home, plan.line.repo, plan.source.record.sha).remove_work()
    return ModelReport(model=plan.line.repo, variants=rows, committed=committed, failures=failures)


def _press_cards(plan: ModelPlan, source: Source, settings: Settings, failures: list[str]) -> list[str]:
    """Returns what was committed."""
    committed = []
    for each in plan.formats:
        if each.cards_only:
            try:
                if press_cards(source, each, settings, failures):
                    committed.append(f"cards of {each.repo_id}")
            except StageFailed as error:
                failures.append(f"{plan.line.repo} {each.format}: {error}")
    return committed


def _press_files(plan: ModelPlan, settings: Settings, failures: list[str]) -> list[VariantReport]:
    repo = plan.line.repo
    bench = Bench.of(plan, settings)
    if bench.protocol.windows < settings.windows:
        get_run_logger().warning(
            "%s: %d windows are measured, not %d: log-probabilities of more would not fit the logits budget of %.1f GB",
            *(repo, bench.protocol.windows, settings.windows, settings.logits_budget / 1e9),
        )
    bench = replace(bench, settings=plan.within_disk(settings, bench.workspace.room()))
    fetch(bench, plan.disk_needed(bench.settings))
    check(bench)
    rows: list[VariantReport] = []
    sound = [each for each in plan.formats if each.to_make and _can_be_made(repo, each, bench, failures)]
    reference = baseline(bench) if sound else None
    for each in sound:
        assert reference is not None
        try:
            siblings = {other.format: other.repo_id for other in plan.formats if other is not each}
            rows += press_format(each, bench, reference, siblings, failures)
        except StageFailed as error:
            failures.append(f"{repo} {each.format}: {error}")
    return rows


def _bring_together(plan: ModelPlan, source: Source, settings: Settings) -> list[str]:
    """Collection and comparison, best effort: what is published is no worse where they lag behind by a night. Returns
    what was committed.

    The comparison's commit comes last: it tells the next plan what was compared, and what the collection holds.
    """
    collected: list[str] = []
    try:
        collected = collect(source, [each.repo_id for each in plan.formats], settings)
    except StageFailed as error:
        get_run_logger().warning("the collection was not kept: %s", error)
    try:
        repo_id = compare(source, collected, settings)
    except StageFailed as error:
        get_run_logger().warning("the comparison was not kept: %s", error)
        return []
    return [f"comparison {repo_id}"] if repo_id else []


def _can_be_made(repo: str, plan: FormatPlan, bench: Bench, failures: list[str]) -> bool:
    """Whether the format's tools are there and it can be made of this source; else why not is a failure."""
    try:
        if quantizer(plan.format).engine == "llama.cpp":
            format_stages.toolchain()
        format_stages.check(bench, plan)
    except StageFailed as error:
        failures.append(f"{repo} {plan.format}: {error}")
        return False
    return True
