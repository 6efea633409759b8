"""The stages of one format as Prefect tasks, named after what they work on."""

from __future__ import annotations

from prefect import get_run_logger

from flows.stage import stage
from quantpress.press import format_stages as plain
from quantpress.press import stages
from quantpress.press.format_stages import FormatStages
from quantpress.toolchain.progress import plain_lines
from quantpress.toolchain.registry import install_on_demand


@stage("toolchain: {name}")
def toolchain(name: str) -> str | None:
    """Finds a toolchain, or, where a press does so by itself, builds it once, which takes minutes; returns its
    version."""
    return install_on_demand(name, plain_lines(get_run_logger().info))


check = stage("{plan.format}: check")(plain.check)

#: Every stage as a task.
TASKS = FormatStages(
    calibrate=stage("{plan.format}: calibrate")(plain.calibrate),
    baseline=stage("{plan.format}: baseline")(plain.baseline),
    layout=stage("{plan.format}: layout")(plain.layout),
    quantize_wave=stage("{wave[0].variant.format}: quantize wave of {wave[0].variant.name}")(stages.quantize_wave),
    quantize=stage("{planned.variant.format}: quantize {planned.variant.name}")(stages.quantize),
    fetch_again=stage("{planned.variant.format}: fetch {planned.variant.name}")(plain.fetch_again),
    renew=stage("{planned.variant.format}: refresh {planned.variant.name}")(plain.renew),
    evaluate=stage("{planned.variant.format}: evaluate {planned.variant.name}")(stages.evaluate),
    gate=stage("{planned.variant.format}: gate {planned.variant.name}")(stages.gate),
    context=stage("{plan.format}: card context")(plain.context),
    published_context=stage("{plan.format}: card context")(plain.published_context),
    read_again=stage("{plan.format}: read {plan.repo_id}")(plain.read_again),
    card=stage("{plan.format}: card")(plain.card),
    publish=stage("{composed.plan.format}: publish {composed.plan.repo_id}")(plain.publish),
    verify=stage("{repo_id}: verify {branch}")(plain.verify),
)
