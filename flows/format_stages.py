"""The stages of one format as Prefect tasks. The name of each task says what the task works on."""

from __future__ import annotations

from prefect import get_run_logger

from flows.stage import stage
from quantpress.plan.steps import VariantPlan
from quantpress.press import format_stages as plain
from quantpress.press import stages
from quantpress.press.bench import Bench
from quantpress.press.compose import Composed
from quantpress.press.format_stages import FormatStages
from quantpress.settings import Settings
from quantpress.source.source import Source
from quantpress.toolchain.progress import plain_lines
from quantpress.toolchain.registry import install_on_demand


@stage("toolchain: {name}")
def toolchain(name: str) -> str | None:
    """Finds the toolchain ``name`` and returns its version. If the toolchain is missing, builds it once, which takes
    minutes.

    Does nothing and returns None for a toolchain that a press does not build by itself.
    """
    return install_on_demand(name, plain_lines(get_run_logger().info))


def quantize_wave(bench: Bench, wave: list[VariantPlan]) -> list[stages.Made]:
    names = ", ".join(each.variant.name for each in wave)
    get_run_logger().info("%s: a wave of %s", wave[0].variant.format, names)
    return stages.quantize_wave(bench, wave)


def publish(composed: Composed, source: Source, settings: Settings, message: str) -> dict[str, str] | None:
    heads = plain.publish(composed, source, settings, message)
    if heads is None:
        get_run_logger().warning("%s: another commit came first; reading it, composing again", composed.plan.repo_id)
    return heads


check = stage("{plan.format}: check")(plain.check)

#: The stages of a format as tasks.
TASKS = FormatStages(
    calibrate=stage("{plan.format}: calibrate")(plain.calibrate),
    baseline=stage("{plan.format}: baseline")(plain.baseline),
    layout=stage("{plan.format}: layout")(plain.layout),
    quantize_wave=stage("{wave[0].variant.format}: quantize wave of {wave[0].variant.name}")(quantize_wave),
    quantize=stage("{planned.variant.format}: quantize {planned.variant.name}")(stages.quantize),
    fetch_again=stage("{planned.variant.format}: fetch {planned.variant.name}")(plain.fetch_again),
    renew=stage("{planned.variant.format}: refresh {planned.variant.name}")(plain.renew),
    evaluate=stage("{planned.variant.format}: evaluate {planned.variant.name}")(stages.evaluate),
    gate=stage("{planned.variant.format}: gate {planned.variant.name}")(stages.gate),
    context=stage("{plan.format}: card context")(plain.context),
    published_context=stage("{plan.format}: card context")(plain.published_context),
    read_again=stage("{plan.format}: read {plan.repo_id}")(plain.read_again),
    card=stage("{plan.format}: card")(plain.card),
    publish=stage("{composed.plan.format}: publish {composed.plan.repo_id}")(publish),
    verify=stage("{repo_id}: verify {branch}")(plain.verify),
)
