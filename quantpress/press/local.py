"""``quantpress quantize``: the stages of a press for one format, on this machine, with nothing read from or sent to a
target Hub. What would be a repository becomes a folder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantizers import quantizer, quantizer_of
from quantizers.protocol import Layout
from quantpress.card.context import CardContext
from quantpress.catalog.schema import Catalog, ModelLine
from quantpress.errors import BadInput, ChildFailed, Refused
from quantpress.evaluation.plots.draw import draw_plots
from quantpress.evaluation.protocol import current_protocol
from quantpress.evaluation.text import find_texts
from quantpress.evaluation.wikitext import fetch_if_reachable
from quantpress.files import place, write_bytes
from quantpress.gate.judge import require_agreement
from quantpress.machine.workspace import alone, require_writable
from quantpress.plan.make import Conditions, plan_format, recipe_calibration
from quantpress.plan.steps import FormatPlan, ModelPlan, VariantPlan
from quantpress.press import compose, stages
from quantpress.press.bench import Bench, FormatBench
from quantpress.press.shared_files import shared_files
from quantpress.publish.commit import BranchCommit
from quantpress.record.manifest import Alias, Entry
from quantpress.record.names import model_name
from quantpress.record.report import VariantReport, report_entry
from quantpress.record.shelf import Shelf
from quantpress.repo_id import check_repo_id
from quantpress.settings import Settings
from quantpress.source.source import Source, chat_template, fetch, link, local_source, look_up_source
from quantpress.toolchain.llama_cpp import install
from quantpress.toolchain.progress import plain_lines

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@dataclass(frozen=True)
class Order:
    """What is asked for: a folder of this machine or a repo of the source Hub, a format, its variants or ladders (none:
    the format's default), and the folder to fill."""

    model: str
    format: str
    variants: list[str]
    out: Path


@dataclass(frozen=True)
class Quantized:
    """What was made: figures per variant, and a line for each variant that failed."""

    rows: list[VariantReport]
    failures: list[str]


def quantize(
    order: Order, catalog: Catalog, settings: Settings, hub: Callable[[], HfApi], report: Callable[[str], None]
) -> Quantized:
    """Makes, measures and judges the variants, and fills ``order.out`` with those that pass, manifest, card and sums.

    Variants of other branches lie in folders of their names. ``catalog`` gives calibration and gates by its defaults;
    ``hub`` is called for a repo only. ``report`` is told what is being done. A variant that fails leaves the others
    alone. Raises :class:`BadInput`, before any work, for what cannot be meant; :class:`Refused` for a model that the
    format cannot be made of.
    """
    _check(order)
    source = _find_source(order.model, hub)
    plan = _plan(order, catalog, source, settings, report)
    (format_plan,) = plan.formats
    if not format_plan.to_press:
        raise Refused("; ".join(step.reason for step in format_plan.blocked) or "there is nothing to make")
    model = Bench.of(plan, settings)
    with alone(settings.home, source.record.repo, lambda: report("waiting for another press that works on this model")):
        model.workspace.require_disk(plan.disk_needed(settings.model_copy(update={"disk_budget": None})))
        _provide(order.model, model, hub, report)
        bench = _prepare(format_plan, model, report)
        layout = quantizer_of(format_plan.to_press[0].variant).layout(
            bench.job, [each.variant for each in format_plan.to_press], [], None
        )
        entries, made, failures = _make(format_plan, bench, layout, report)
        failures += [step.reason for step in format_plan.blocked]
        failures += [f"{name}: {reason}" for name, reason in layout.refused.items()]
        if entries:
            for commit in _compose(format_plan, bench, entries, made, layout):
                _write(commit, order.out)
        if not failures:
            model.workspace.remove_work()
    return Quantized([_row(source, format_plan, entry) for entry in entries], failures)


def _row(source: Source, plan: FormatPlan, entry: Entry) -> VariantReport:
    """The figures of a variant; nothing is published here, so it is ``made``, or withheld by a gate."""
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
    repo_id = f"{settings.namespace or 'local'}/{model_name(line.repo)}-{chosen.suffix}"
    names = catalog.variants_of(line, order.format, source.config)
    nowhere = Shelf(repo_id, {}, {})
    conditions = Conditions(recipe_calibration(texts, amount), protocol, gates)
    plan = plan_format(names, chosen, source, conditions, nowhere, settings)
    return ModelPlan(line, source, texts, amount, gates, (plan,), ())


def _provide(asked: str, model: Bench, hub: Callable[[], HfApi], report: Callable[[str], None]) -> None:
    """Puts the source where the stages look for it: downloaded, or as links into the folder."""
    if Path(asked).is_dir():
        link(model.source, Path(asked), model.workspace.source)
        return
    report(f"fetching {model.source.record.repo}")
    fetch(hub(), model.source, model.workspace.source)


def _prepare(plan: FormatPlan, model: Bench, report: Callable[[str], None]) -> FormatBench:
    first = plan.to_press[0]
    chosen = quantizer_of(first.variant)
    if chosen.engine == "llama.cpp":
        install(plain_lines(report))
    report("looking at the source")
    stages.check_weights(model)
    stages.check(model, first.variant, first.recipe)
    report("calibrating")
    job = stages.prepare(model, first.variant, first.recipe, lambda job: None)
    report("measuring the unquantized model")
    base = reference = stages.measure_base(model)
    if chosen.engine == "llama.cpp":
        base = stages.evaluate_unquantized(model, chosen.engine, chosen.unquantized(job), reference)
        require_agreement(reference.evaluation, base.evaluation)
    return FormatBench(model, job, reference, base)


def _make(
    plan: FormatPlan, bench: FormatBench, layout: Layout, report: Callable[[str], None]
) -> tuple[list[Entry], dict[str, stages.Made], list[str]]:
    """Wave by wave: entries, what was made by variant, and what failed."""
    planned = {each.variant.name: each for each in plan.to_press}
    entries: list[Entry] = []
    made: dict[str, stages.Made] = {}
    failures: list[str] = []
    for names in layout.waves:
        report(f"quantizing {', '.join(names)}")
        wave = [planned[name] for name in names]
        try:
            made |= _made_of(bench.model, wave)
        except ChildFailed as error:
            failures += [f"{name}: {error}" for name in names]
            continue
        for each in wave:
            report(f"measuring {each.variant.name}")
            try:
                evaluation = stages.evaluate(bench.model, each, made[each.variant.name], bench.base)
            except ChildFailed as error:
                failures.append(f"{each.variant.name}: {error}")
                continue
            entries.append(stages.gate(bench.model, each, made[each.variant.name], evaluation, bench.base))
    return entries, made, failures


def _made_of(model: Bench, wave: list[VariantPlan]) -> dict[str, stages.Made]:
    found = stages.quantize_wave(model, wave) if len(wave) > 1 else [stages.quantize(model, wave[0])]
    return {each.variant.name: made for each, made in zip(wave, found, strict=True)}


def _compose(
    plan: FormatPlan, bench: FormatBench, entries: list[Entry], made: dict[str, stages.Made], layout: Layout
) -> list[BranchCommit]:
    planned = {each.variant.name: each.recipe for each in plan.to_press}
    chosen = quantizer_of(plan.to_press[0].variant)
    content = compose.CommitContent(
        entries=entries,
        aliases=[
            Alias(recipe=planned[name], fingerprint=planned[name].fingerprint, same_as=other)
            for name, other in layout.aliases.items()
        ],
        folders={entry.variant: made[entry.variant].files for entry in entries},
        shared=shared_files(chosen, bench.job),
        baselines=list(dict.fromkeys([bench.reference.evaluation, bench.base.evaluation])),
        toolchain=chosen.tools(),
    )
    source, settings = bench.model.source, bench.model.settings
    record, name = source.record, model_name(source.record.repo)
    without_plots = compose.compose_manifest(plan, name, record, content, [])
    plots = draw_plots(without_plots, bench.model.workspace.work / plan.format / "plots")
    manifest = compose.compose_manifest(plan, name, record, content, plots)
    context = CardContext(
        repo_id=plan.repo_id,
        quantized_by=plan.repo_id.partition("/")[0],
        chat_template=chat_template(bench.model.workspace.source),
        target_endpoint=settings.target_endpoint,
        source_endpoint=settings.source_endpoint,
        source_bytes=source.weight_bytes,
    )
    return compose.compose_commits(plan, manifest, content, plots, context)


def _write(commit: BranchCommit, out: Path) -> None:
    """Fills a folder as the branch would be, the weights first: where the card is, all is."""
    folder = out if commit.branch == "main" else out / commit.branch
    files = sorted(commit.uploads.items(), key=lambda item: isinstance(item[1], bytes))
    for name, content in files:
        if isinstance(content, bytes):
            write_bytes(folder / name, content)
        else:
            place(content, folder / name)
