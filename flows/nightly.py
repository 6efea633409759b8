"""The flow ``nightly``: plans the whole catalog, makes and publishes what each model needs, and reports the results."""

from __future__ import annotations

from pathlib import Path

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Failed

from flows.artifacts import show_plan, show_results
from flows.press_model import press_model
from flows.stage import StageFailed, stage
from quantpress.catalog.reader import load_catalog
from quantpress.errors import in_words
from quantpress.hub.hubs import hubs, target_hub
from quantpress.hub.token import hold_token
from quantpress.plan.make import plan_catalog
from quantpress.plan.orphans import find_orphans
from quantpress.plan.steps import ModelPlan, Step
from quantpress.press.deadlines import of_model
from quantpress.press.model import leave_idle
from quantpress.record.report import ModelReport
from quantpress.settings import Settings, load_settings
from quantpress.terminal import print_plain_logs

#: Seconds after which a night gives up what it has not begun or finished. The next night goes on from the manifests.
_WEEK = 604_800


@flow(name="nightly", timeout_seconds=_WEEK)
def nightly(
    catalog: str = "catalog.yaml", only: str | None = None, formats: list[str] | None = None
) -> list[ModelReport] | State[list[ModelReport]]:
    """Makes everything that the catalog asks for and the Hub does not have yet. ``only`` limits the run to one model,
    and ``formats`` limits it to some formats."""
    hold_token()
    print_plain_logs()
    log = get_run_logger()
    try:
        plans = plan(catalog, only, formats)
    except StageFailed as error:
        return Failed(message=str(error), data=[ModelReport(model=only or "", failures=[str(error)])])
    show_plan(plans, _left_behind(catalog) if only is None and formats is None else [])
    settings = load_settings(load_catalog(Path(catalog)).settings)
    reports = []
    for each in plans:
        for step in each.deferred:
            log.warning("%s %s %s: %s", step.model, step.format, step.variant, step.reason)
        report = _carried_out(each, catalog, settings, formats)
        reports.append(report.model_copy(update={"failures": [*report.failures, *each.obstacles]}))
    show_results(reports)
    log.info("%d variants made", sum(len(report.variants) for report in reports))
    failures = [failure for report in reports for failure in report.failures]
    if failures:
        return Failed(message="\n".join(failures), data=reports)
    return reports


def _carried_out(plan: ModelPlan, catalog: str, settings: Settings, formats: list[str] | None) -> ModelReport:
    """Presses a model that has work, in a flow of its own. Removes what killed runs left of a model that has none.

    Whatever happens to the model is in the report, so that the next model has its turn.
    """
    repo = plan.line.repo
    try:
        if not plan.has_work:
            leave_idle(plan, settings, formats)
            return ModelReport(model=repo)
        press = press_model.with_options(timeout_seconds=of_model(plan, settings))
        state = press(repo, catalog, formats, plan.upload, return_state=True)
        outcome = state.result(raise_on_failure=False)
    except Exception as error:  # such as a folder of work that somebody else owns
        return ModelReport(model=repo, failures=[f"{repo}: {in_words(error)}"])
    if isinstance(outcome, ModelReport):
        return outcome
    return ModelReport(model=repo, failures=[f"{repo}: {state.message or 'crashed'}"])


def _left_behind(catalog: str) -> list[Step]:
    """Returns a step for each orphaned repository: published, but no longer in the catalog. If the repositories cannot
    be listed, logs a warning and returns no steps, so that the run goes on."""
    try:
        return orphaned(catalog)
    except StageFailed as error:
        get_run_logger().warning("cannot tell what is orphaned: %s", error)
        return []


@stage("orphaned")
def orphaned(catalog: str) -> list[Step]:
    """Returns a step for each repository that is published but no longer in the catalog."""
    loaded = load_catalog(Path(catalog))
    settings = load_settings(loaded.settings)
    return find_orphans(loaded, settings, target_hub(settings))


@stage("plan {catalog}")
def plan(catalog: str, only: str | None, formats: list[str] | None) -> list[ModelPlan]:
    """Returns the plan of each model: what the catalog asks for and the published manifests do not show yet."""
    loaded = load_catalog(Path(catalog))
    settings = load_settings(loaded.settings)
    return plan_catalog(loaded, settings, hubs(settings), only=only, formats=formats)
