"""Makes the plan: compares each line of the catalog with its source and with what is published. Reads the Hubs and
changes nothing on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from quantizers import quantizer
from quantizers.protocol import Quantizer
from quantpress.catalog.schema import CalibrationLine, Catalog, GateLine, ModelLine, suggestion
from quantpress.comparison.state import why_outdated
from quantpress.errors import BadInput, QuantpressError, Refused, Unreadable
from quantpress.evaluation.protocol import current_protocol
from quantpress.evaluation.text import PYDOC, WIKITEXT, WIKITEXT_TRAIN, Texts, find_texts
from quantpress.evaluation.wikitext import ARCHIVE, DATASET, fetch_wikitext
from quantpress.gate.limits import limit_of
from quantpress.hub.hubs import Hubs
from quantpress.plan.budget import UploadBudget
from quantpress.plan.decide import Action, decide, decide_cards
from quantpress.plan.devices import require_device
from quantpress.plan.estimate import Estimate, estimate_variant
from quantpress.plan.steps import FormatPlan, ModelPlan, Step, VariantPlan
from quantpress.record.measurement import Protocol
from quantpress.record.names import comparison_repo, model_name
from quantpress.record.recipe import Calibration, Recipe
from quantpress.record.shelf import Shelf, read_shelf
from quantpress.settings import Settings
from quantpress.source.licence import require_permission
from quantpress.source.model_types import require_known_type
from quantpress.source.source import Source, look_up_source

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def plan_catalog(
    catalog: Catalog,
    settings: Settings,
    hubs: Hubs,
    *,
    only: str | None = None,
    formats: list[str] | None = None,
) -> list[ModelPlan]:
    """Returns the plans of the catalog's models. Models of higher priority come first. Among models of equal priority,
    the catalog's order decides.

    If ``only`` is given, plans only this model. If ``formats`` is given, plans only these formats. Raises
    :class:`BadInput` if no namespace is set or if ``only`` is not in the catalog. Raises
    :class:`~quantpress.errors.QuantpressError` if a Hub cannot be reached.
    """
    require_plannable(catalog, settings, only)
    lines = [line for line in catalog.models if only in (None, line.repo)]
    lines.sort(key=lambda line: -line.priority)
    budget = UploadBudget(settings.upload_budget)

    @cache
    def texts_for(calibration: str | None) -> Texts:
        """Finds the calibration text that a setting names, and the evaluation text. The texts of each setting are
        cached, so all models of this call that have the same setting share them."""
        return find_texts(calibration, settings, lambda: fetch_wikitext(hubs.source, settings.home))

    plans = (plan_model(catalog, line, settings, hubs, formats, texts_for) for line in lines)
    return [_within(plan, budget) for plan in plans]


def _within(plan: ModelPlan, budget: UploadBudget) -> ModelPlan:
    """Returns the plan without the variants that exceed the upload budget.

    A variant that exceeds what is left of the budget is deferred to a later run. A variant that is larger than the
    budget of a whole run is blocked.
    """
    formats = []
    for each in plan.formats:
        kept: list[VariantPlan] = []
        blocked = list(each.blocked)
        for variant in each.variants:
            step = variant.step
            if step.estimate is not None and (reason := budget.refusal(step.estimate.upload)):
                if budget.is_large_enough(step.estimate.upload):
                    update = {"action": "defer", "reason": reason, "estimate": None}
                    blocked.append(step.model_copy(update=update))
                else:
                    blocked.append(_blocked(step.model, step.format, step.variant, step.repo_id, Refused(reason)))
            else:
                kept.append(variant)
        formats.append(replace(each, variants=tuple(kept), blocked=tuple(blocked)))
    within = replace(plan, formats=tuple(formats))
    if budget.limit is None:
        return within
    return replace(within, upload=sum(step.estimate.upload for step in within.steps if step.estimate is not None))


def require_plannable(catalog: Catalog, settings: Settings, only: str | None) -> None:
    """Raises :class:`BadInput` if no namespace is set or if ``only`` is not in the catalog. Asks no Hub."""
    if not settings.namespace:
        raise BadInput("no namespace to publish under: set QUANTPRESS_NAMESPACE or 'namespace' in the settings")
    if only is not None and all(line.repo != only for line in catalog.models):
        raise BadInput(f"{only} is not in the catalog{suggestion(only, [line.repo for line in catalog.models])}")


def plan_model(
    catalog: Catalog,
    line: ModelLine,
    settings: Settings,
    hubs: Hubs,
    formats: list[str] | None,
    texts_for: Callable[[str | None], Texts],
) -> ModelPlan:
    """Returns the plan of one line of the catalog. Reads the source Hub and the target Hub and changes nothing on them.

    ``texts_for`` takes the setting of the calibration text and returns the calibration text and the evaluation text.
    Raises :class:`~quantpress.errors.QuantpressError` if a Hub cannot be reached.
    """
    amount, gates = catalog.calibration_of(line), catalog.gates_of(line)

    def whole(action: Action, reason: str) -> ModelPlan:
        step = Step(model=line.repo, format="", variant="", repo_id="", action=action, reason=reason)
        return ModelPlan(line, None, None, amount, gates, (), (step,))

    if line.skip:
        return whole("skip", f"skipped: {line.skip}")
    try:
        source = look_up_source(hubs.source, line.repo, line.revision)
        source = replace(source, record=require_permission(source.record, line.licence_override))
        require_known_type(source.config)
    except Refused as refusal:
        return whole("block", f"blocked: {refusal}")
    texts = texts_for(amount.text)
    protocol = current_protocol(source, settings, texts.evaluation)
    conditions = Conditions(recipe_calibration(texts, amount), protocol, gates)
    plans = []
    for format_name in catalog.formats_of(line):
        if formats is not None and format_name not in formats:
            continue
        repo_id = f"{settings.namespace}/{model_name(line.repo)}-{quantizer(format_name).suffix}"
        try:
            shelf = read_shelf(hubs.target, repo_id)
        except Unreadable as unreadable:
            step = _blocked(line.repo, format_name, "", repo_id, unreadable)
            plans.append(FormatPlan(format_name, Shelf(repo_id, {}, {}), (), (step,)))
            continue
        try:
            shelf.require_ours("main")
            _require_wikitext(shelf, texts, amount, settings)
            names = catalog.variants_of(line, format_name, source.config)
        except Refused as refusal:
            step = _blocked(line.repo, format_name, "", repo_id, refusal)
            card = _plan_cards(format_name, shelf, source)
            plans.append(FormatPlan(format_name, shelf, (), (step,), card))
            continue
        chosen = quantizer(format_name, catalog.backend_of(line, format_name))
        planned = plan_format(names, chosen, source, conditions, shelf, settings)
        left_out = catalog.left_out(line, format_name, source.config)
        plans.append(replace(planned, blocked=planned.blocked + _skipped(line.repo, format_name, repo_id, left_out)))
    comparison = _plan_comparison(line.repo, settings, plans, hubs.target)
    return ModelPlan(line, source, texts, amount, gates, tuple(plans), (), comparison)


def recipe_calibration(texts: Texts, amount: CalibrationLine) -> Calibration:
    """Returns the part of a recipe that describes the calibration: which text, and how much of the text."""
    text = texts.calibration
    return Calibration(text=text.name, sha256=text.sha256, samples=amount.samples, length=amount.length)


def _require_wikitext(shelf: Shelf, texts: Texts, amount: CalibrationLine, settings: Settings) -> None:
    """Raises :class:`Refused` if the offline text would replace WikiText-2, although no setting asks for it.

    The offline text is Python's own documentation. It would replace WikiText-2 in this case: the repo's manifests list
    variants that were calibrated or measured on WikiText-2, but now neither this machine nor the source Hub has
    WikiText-2. ``shelf`` is what the repo on the target Hub holds.
    """
    entries = [entry for manifest in shelf.manifests.values() for entry in manifest.entries]
    measured = {entry.evaluation.protocol.text for entry in entries if entry.evaluation is not None}
    calibrated = {entry.recipe.calibration.text for entry in entries}
    measures_offline = settings.evaluation_text is None and texts.evaluation.name == PYDOC
    calibrates_offline = amount.text is None and texts.calibration.name == PYDOC
    if (measures_offline and WIKITEXT in measured) or (calibrates_offline and WIKITEXT_TRAIN in calibrated):
        raise Refused(
            f"its variants were made with WikiText-2, which {settings.source_endpoint} does not have: upload {ARCHIVE} "
            f"to the dataset {DATASET} there, or set evaluation_text and the calibration's text"
        )


def _skipped(model: str, format_name: str, repo_id: str, left_out: Mapping[str, str]) -> tuple[Step, ...]:
    """Returns a step for each variant in ``left_out``, which is a dict from a variant's name to the reason.

    A ladder (a list of variants) in the catalog names these variants, but the model cannot have them.
    """
    return tuple(
        Step(
            model=model, format=format_name, variant=name, repo_id=repo_id, action="skip", reason=f"left out: {reason}"
        )
        for name, reason in left_out.items()
    )


def _plan_comparison(model: str, settings: Settings, plans: list[FormatPlan], target_hub: HfApi) -> Step | None:
    repo_id = comparison_repo(settings.namespace, model_name(model))
    shelves = [each.shelf for each in plans]
    manifests = {each.repo_id: each.manifests["main"] for each in shelves if "main" in each.manifests}
    reason = why_outdated(target_hub, repo_id, manifests)
    if reason is None:
        return None
    try:
        read_shelf(target_hub, repo_id).require_ours("main")
    except Refused as refusal:
        return _blocked(model, "", "", repo_id, refusal)
    return Step(model=model, format="", variant="", repo_id=repo_id, action="compare", reason=reason)


@dataclass(frozen=True)
class Conditions:
    """How every variant of a model is calibrated, measured and judged.

    ``gates`` holds only the gates for which the catalog changes the built-in limit.
    """

    calibration: Calibration
    protocol: Protocol
    gates: Mapping[str, GateLine]


def plan_format(
    names: list[str], chosen: Quantizer, source: Source, conditions: Conditions, shelf: Shelf, settings: Settings
) -> FormatPlan:
    """Returns the plan for the variants ``names`` of one format.

    ``chosen`` is the quantizer that makes them. ``shelf`` is what the format's repo on the target Hub holds.
    """
    budget = settings.disk_budget
    format_name, repo, repo_id = chosen.format, source.record.repo, shelf.repo_id
    variants, blocked = [], []
    for name in names:
        try:
            variant = chosen.variant(name, source.config)
            shelf.require_ours(variant.branch)
            require_device(variant, source, settings)
            version = chosen.version()
        except Refused as refusal:
            blocked.append(_blocked(repo, format_name, name, repo_id, refusal))
            continue
        recipe = Recipe(
            format=format_name,
            variant=variant.name,
            source=repo,
            source_sha=source.record.sha,
            quantizer=version,
            parameters=variant.parameters,
            calibration=conditions.calibration,
        )
        limit = limit_of(variant, conditions.gates)
        action, reason = decide(recipe, variant.branch, source.record, shelf, limit, conditions.protocol)
        estimate = estimate_variant(source, variant)
        if action == "press" and budget is not None and estimate.upload > budget:
            blocked.append(_blocked(repo, format_name, name, repo_id, _too_large(estimate, budget)))
            continue
        step = Step(
            model=repo,
            format=format_name,
            variant=variant.name,
            repo_id=repo_id,
            action=action,
            reason=reason,
            estimate=estimate if action in ("press", "refresh") else None,
        )
        variants.append(VariantPlan(variant, recipe, step))
    card = _plan_cards(format_name, shelf, source)
    return FormatPlan(format_name, shelf, tuple(variants), tuple(blocked), card)


def _plan_cards(format_name: str, shelf: Shelf, source: Source) -> Step | None:
    reason = decide_cards(shelf, source.record)
    if reason is None:
        return None
    model, repo_id = source.record.repo, shelf.repo_id
    return Step(model=model, format=format_name, variant="", repo_id=repo_id, action="card", reason=reason)


def _too_large(estimate: Estimate, budget: int) -> Refused:
    return Refused(
        f"about {estimate.upload / 1e9:.2f} GB, more than the disk budget of {budget / 1e9:.2f} GB: "
        "raise QUANTPRESS_DISK_BUDGET or leave the variant out"
    )


def _blocked(model: str, format_name: str, variant: str, repo_id: str, refusal: QuantpressError) -> Step:
    reason = f"blocked: {refusal}"
    return Step(model=model, format=format_name, variant=variant, repo_id=repo_id, action="block", reason=reason)
