"""The flow ``press-model``: makes and publishes the variants of one model. Runs the stages of
:mod:`quantpress.press.model` as Prefect tasks."""

from __future__ import annotations

from pathlib import Path

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Failed

from flows.artifacts import show_plot
from flows.format_stages import TASKS, check, toolchain
from flows.stage import stage
from quantpress.catalog.reader import load_catalog
from quantpress.errors import QuantpressError
from quantpress.hub.hubs import hubs
from quantpress.hub.token import hold_token
from quantpress.machine.workspace import alone
from quantpress.plan.make import plan_catalog
from quantpress.plan.steps import ModelPlan
from quantpress.press import events, model_stages, stages
from quantpress.press.model import press_model as pressed
from quantpress.press.model_stages import ModelStages
from quantpress.record.report import ModelReport, VariantReport
from quantpress.settings import Settings, load_settings
from quantpress.terminal import print_plain_logs

#: The stages of a model as tasks.
_STAGES = ModelStages(
    fetch=stage("fetch {bench.source.record.repo}")(model_stages.fetch),
    check=stage("check {bench.source.record.repo}")(stages.check_source),
    baseline=stage("baseline: transformers")(stages.measure_base),
    toolchain=toolchain,
    check_format=check,
    make_gated=stage("gate the repo that compares the formats of {source.record.repo}")(model_stages.make_gated),
    collect=stage("collection of {source.record.repo}")(model_stages.collect),
    compare=stage("comparison of {source.record.repo}")(model_stages.compare),
    format=TASKS,
)


#: Seconds for a press that an operator starts for one model alone. ``nightly`` gives each model its own deadline.
_WEEK = 604_800


@flow(name="press-model", flow_run_name="press {repo}", timeout_seconds=_WEEK)
def press_model(
    repo: str, catalog: str = "catalog.yaml", formats: list[str] | None = None, upload_budget: int | None = None
) -> ModelReport | State[ModelReport]:
    """Presses one model of the catalog: makes and publishes its variants. ``formats`` limits the run to some formats.
    ``upload_budget`` is the bytes that this model may upload. This number replaces the setting ``upload_budget``."""
    hold_token()
    print_plain_logs()
    settings = load_settings(load_catalog(Path(catalog)).settings)
    if upload_budget is not None:
        settings = settings.model_copy(update={"upload_budget": upload_budget})
    log = get_run_logger()
    with alone(
        settings.home,
        repo,
        lambda: log.warning("another press on this machine works on %s; waiting until it ends", repo),
    ):
        report = _pressed(repo, catalog, formats, settings)
    if report.failures:
        return Failed(message="\n".join(report.failures), data=report)
    return report


@stage("plan {repo}")
def plan_one(repo: str, catalog: str, formats: list[str] | None, settings: Settings) -> ModelPlan:
    """Returns the plan of one model. Reads the current state of the Hubs."""
    loaded = load_catalog(Path(catalog))
    return plan_catalog(loaded, settings, hubs(settings), only=repo, formats=formats)[0]


def _pressed(repo: str, catalog: str, formats: list[str] | None, settings: Settings) -> ModelReport:
    """Presses a model, and makes the report from the events that the press yields."""
    log = get_run_logger()
    rows: list[VariantReport] = []
    committed: list[str] = []
    failures: list[str] = []
    try:
        plan = plan_one(repo, catalog, formats, settings)
        if plan.source is None:  # since the night's plan, the whole model is blocked
            failures += plan.obstacles
        for event in pressed(plan, settings, _STAGES):
            match event:
                case events.Failed():
                    log.error("%s", event.line)
                    failures.append(event.line)
                case events.Noted(line):
                    log.warning("%s", line)
                case events.Outdated(planned, repo_id, reason):
                    log.warning(
                        "%s of %s must be quantized again, because new metadata is not enough: %s",
                        *(planned.variant.name, repo_id, reason),
                    )
                case events.CommittedBeside(what):
                    committed.append(what)
                case events.Committed(repo_id, new, plotted):
                    rows += new
                    if plotted:
                        show_plot(settings.target_endpoint, repo_id, plotted)
    except QuantpressError as error:
        failures.append(f"{repo}: {error}")
    return ModelReport(model=repo, variants=rows, committed=committed, failures=failures)
