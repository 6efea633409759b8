"""``quantpress quantize``: makes variants of one format on this machine and publishes nothing.

The command runs the same stages as a press (a run that makes and publishes variants). But it fills a folder instead of
a repository. It reads nothing from the target Hub and sends nothing to the target Hub.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from quantizers import quantizer, quantizer_of
from quantizers.protocol import Layout
from quantizers.traits import traits_of
from quantpress.card.context import CardContext
from quantpress.catalog.schema import Catalog, ModelLine
from quantpress.errors import BadInput, Refused
from quantpress.evaluation.protocol import current_protocol
from quantpress.evaluation.text import find_texts
from quantpress.evaluation.wikitext import fetch_if_reachable
from quantpress.files import place, write_bytes
from quantpress.machine.workspace import alone, require_writable
from quantpress.plan.make import Conditions, plan_format, recipe_calibration
from quantpress.plan.steps import FormatPlan, ModelPlan
from quantpress.press.bench import Bench, FormatBench
from quantpress.press.compose import aliases_of, compose_format, content_of
from quantpress.press.events import Event, Failed, Judged, Noted
from quantpress.press.format import judged, prepared
from quantpress.press.format_stages import PLAIN, FormatStages, check, own_context
from quantpress.press.stages import check_source, measure_base
from quantpress.press.waves import in_turn, layout, make_wave, refused
from quantpress.publish.commit import BranchCommit
from quantpress.record.manifest import Entry
from quantpress.record.names import model_name
from quantpress.record.report import VariantReport, report_entry
from quantpress.record.shelf import Shelf
from quantpress.repo_id import check_repo_id
from quantpress.settings import Settings
from quantpress.source.language_models import require_language_model
from quantpress.source.model_types import require_known_type
from quantpress.source.quantized import require_unquantized
from quantpress.source.source import Source, fetch, link, local_source, look_up_source
from quantpress.toolchain.progress import plain_lines
from quantpress.toolchain.registry import install_on_demand

if TYPE_CHECKING:
    from huggingface_hub import HfApi

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Order:
    """What the user asks for.

    ``model`` is a folder on this machine or a repo of the source Hub. ``variants`` are names of variants or of ladders
    (lists of variants). If there are none, the format's default variants are made. ``out`` is the folder to fill.
    """

    model: str
    format: str
    variants: list[str]
    out: Path


@dataclass(frozen=True)
class Quantized:
    """What was made: one row of figures per variant, and one line for each variant that failed, is blocked or is
    withheld."""

    rows: list[VariantReport]
    failures: list[str]


def quantize(
    order: Order, catalog: Catalog, settings: Settings, hub: Callable[[], HfApi], report: Callable[[str], None]
) -> Quantized:
    """Makes, measures and judges the variants. Fills ``order.out`` with the variants that pass, the manifest, the card
    and the sums.

    A variant that would be published on another branch than ``main`` goes to a subfolder named after this branch. The
    defaults of ``catalog`` give calibration and gates. ``hub`` returns the source Hub's client, and is called only if
    the model is a repo. ``report`` is called with a line about what is being done. If a variant fails, the others are
    still made. Raises :class:`BadInput`, before any work, if the order cannot be carried out. Raises :class:`Refused`
    if the format cannot be made from the model.
    """
    _check(order)
    source = _find_source(order.model, hub)
    require_known_type(source.config)
    require_language_model(source.config, source.record.files)
    plan = _plan(order, catalog, source, settings, report)
    (format_plan,) = plan.formats
    if not format_plan.to_press:
        raise Refused("; ".join(step.reason for step in format_plan.blocked) or "there is nothing to make")
    model = Bench.of(plan, settings)
    with alone(settings.home, source.record.repo, lambda: report("waiting for another press that works on this model")):
        model.workspace.require_disk(plan.disk_needed(settings.model_copy(update={"disk_budget": None})))
        _provide(order.model, model, hub, report)
        bench, layout, events = _make(format_plan, model, report)
        variants = [event for event in events if isinstance(event, Judged)]
        failures = [f"{event.variant}: {event.reason}" for event in events if isinstance(event, Failed)]
        failures += [step.reason for step in format_plan.blocked]
        if variants:
            made = {each.planned.variant.name: each.made for each in variants}
            entries, aliases = [each.entry for each in variants], aliases_of(format_plan, layout)
            content = content_of(format_plan, bench, entries, made, aliases)
            plots = model.workspace.work / format_plan.format / "plots"
            for commit in compose_format(format_plan, source.record, content, bench.context, plots).commits:
                _write(commit, order.out)
        if not failures:
            model.workspace.remove_work()
    rows = [_row(source, format_plan, each.entry) for each in variants]
    return Quantized(rows, [*failures, *(row.withheld for row in rows if row.withheld)])


def _row(source: Source, plan: FormatPlan, entry: Entry) -> VariantReport:
    """Returns the row of a variant. Because nothing is published here, the status ``made`` replaces ``published``."""
    row = report_entry(source.record.repo, plan.repo_id, entry)
    return row.model_copy(update={"status": "made"}) if row.status == "published" else row


def _check(order: Order) -> None:
    chosen = quantizer(order.format)
    for name in order.variants:
        if name not in chosen.ladders():
            chosen.check_name(name)
    if order.out.exists() and (not order.out.is_dir() or any(order.out.iterdir())):
        raise BadInput(f"{order.out} is not an empty folder: give one that is, or that is not there yet")
    require_writable(order.out)


def _find_source(model: str, hub: Callable[[], HfApi]) -> Source:
    if Path(model).is_dir():
        return local_source(Path(model))
    if Path(model).exists():
        raise BadInput(f"{model} is a file: give the folder of an unquantized model, with config.json and safetensors")
    try:
        check_repo_id(model)
    except BadInput:
        raise BadInput(f"{model}: no such folder, and not a repository's name (namespace/name)") from None
    return look_up_source(hub(), model, "main")


def _plan(
    order: Order, catalog: Catalog, source: Source, settings: Settings, report: Callable[[str], None]
) -> ModelPlan:
    variants = {order.format: order.variants} if order.variants else {}
    line = ModelLine(repo=source.record.repo, formats=[order.format], variants=variants)
    backend = catalog.backend_of(line, order.format)
    amount, gates = catalog.calibration_of(line), catalog.gates_of(line)
    texts = find_texts(amount.text, settings, lambda: fetch_if_reachable(settings, report))
    protocol = current_protocol(source, settings, texts.evaluation)
    chosen = quantizer(order.format, backend)
    require_unquantized(source.config, order.format, traits_of(chosen).fp8_source)
    repo_id = f"{settings.namespace or 'local'}/{model_name(line.repo)}-{chosen.suffix}"
    names = catalog.variants_of(line, order.format, source.config)
    nowhere = Shelf(repo_id, {}, {})
    conditions = Conditions(recipe_calibration(texts, amount), protocol, gates)
    plan = plan_format(names, chosen, source, conditions, nowhere, settings)
    return ModelPlan(line, source, texts, amount, gates, (plan,), ())


def _provide(asked: str, model: Bench, hub: Callable[[], HfApi], report: Callable[[str], None]) -> None:
    """Puts the source into the workspace, where the stages look for it. Downloads a repo, and links the files of a
    folder."""
    if Path(asked).is_dir():
        link(model.source, Path(asked), model.workspace.source)
        return
    report(f"fetching {model.source.record.repo}")
    fetch(hub(), model.source, model.workspace.source)


def _make(plan: FormatPlan, model: Bench, report: Callable[[str], None]) -> tuple[FormatBench, Layout, list[Event]]:
    """Makes, measures and judges every variant with the stages of a press."""
    install_on_demand(traits_of(quantizer_of(plan.to_press[0].variant)).toolchain, plain_lines(report))
    stages = _telling(report)
    report("looking at the source")
    if unused := check_source(model).in_words:
        report(unused)
    check(model, plan)
    report("measuring the unquantized model")
    bench = prepared(plan, model, measure_base(model), (), stages)
    order, _ = layout(plan, bench.job, model, None, stages)
    planned = {each.variant.name: each for each in plan.to_press}
    wanted = [[planned[name] for name in names] for names in order.waves]
    # The waves never overlap. So Ctrl-C ends the one child that works, because no variant is made while another one is
    # measured.
    waves = in_turn(wanted, model, lambda wave, bench: make_wave(wave, bench, stages))
    events: list[Event] = []
    for event in judged(waves, bench.base, stages):
        if isinstance(event, Noted):
            report(event.line)
        events.append(event)
    return bench, order, [*events, *refused(plan, order)]


def _telling(report: Callable[[str], None]) -> FormatStages:
    """Returns the stages of a press, changed to report what they do and to ask no target Hub."""

    def saying(what: Callable[P, str], stage: Callable[P, R]) -> Callable[P, R]:
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            report(what(*args, **kwargs))
            return stage(*args, **kwargs)

        return call

    def context(bench: Bench, plan: FormatPlan, coming: Collection[str]) -> CardContext:
        return own_context(bench, plan).model_copy(update={"comparison": None})

    return replace(
        PLAIN,
        calibrate=saying(lambda bench, plan: "calibrating", PLAIN.calibrate),
        quantize=saying(lambda bench, planned: f"quantizing {planned.variant.name}", PLAIN.quantize),
        quantize_wave=saying(
            lambda bench, wave: f"quantizing {', '.join(each.variant.name for each in wave)}", PLAIN.quantize_wave
        ),
        evaluate=saying(lambda bench, planned, made, base: f"measuring {planned.variant.name}", PLAIN.evaluate),
        context=context,
    )


def _write(commit: BranchCommit, out: Path) -> None:
    """Fills a folder with what the branch would hold. The weights come first, so that a folder with a card has all of
    its weights."""
    folder = out if commit.branch == "main" else out / commit.branch
    files = sorted(commit.uploads.items(), key=lambda item: isinstance(item[1], bytes))
    for name, content in files:
        if isinstance(content, bytes):
            write_bytes(folder / name, content)
        else:
            place(content, folder / name)
