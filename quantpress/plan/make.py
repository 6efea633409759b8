"""Makes the plan: compares each line of the catalog with its source and with what is published. Reads the Hubs and
changes nothing on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from quantizers import quantizer
from quantizers.protocol import Quantizer
from quantizers.traits import traits_of
from quantpress.catalog.schema import CalibrationLine, Catalog, GateLine, ModelLine, suggestion
from quantpress.comparison.state import why_outdated
from quantpress.errors import BadInput, QuantpressError, Refused
from quantpress.evaluation.protocol import current_protocol
from quantpress.evaluation.text import PYDOC, WIKITEXT, WIKITEXT_TRAIN, Texts, find_texts
from quantpress.evaluation.wikitext import ARCHIVE, DATASET, fetch_wikitext
from quantpress.gate.limits import limit_of
from quantpress.hub.hubs import Hubs
from quantpress.plan.blocked import ENDS_THE_PLAN, NothingPlanned, blocked_step, left_out, too_large
from quantpress.plan.budget import UploadBudget
from quantpress.plan.decide import decide, decide_cards
from quantpress.plan.devices import require_device
from quantpress.plan.estimate import estimate_variant
from quantpress.plan.steps import FormatPlan, ModelPlan, Step, VariantPlan
from quantpress.plan.withdraw import without_bad
from quantpress.record.measurement import Protocol
from quantpress.record.names import comparison_repo, model_name
from quantpress.record.recipe import Calibration, Recipe
from quantpress.record.shelf import Shelf, read_shelf
from quantpress.settings import Settings
from quantpress.source.language_models import require_language_model
from quantpress.source.licence import require_permission
from quantpress.source.model_types import require_known_type
from quantpress.source.quantized import require_unquantized
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
        try:
            return find_texts(calibration, settings, lambda: fetch_wikitext(hubs.source, settings.home))
        except ENDS_THE_PLAN:
            raise
        except QuantpressError as error:
            raise NothingPlanned(str(error)) from None

    def planned(line: ModelLine) -> ModelPlan:
        try:
            return plan_model(catalog, line, settings, hubs, formats, texts_for)
        except ENDS_THE_PLAN:
            raise
        except Exception as error:  # whatever happens to one model must not stop the others
            return _whole(catalog, line, blocked_step(line.repo, "", "", "", error))

    return [_within(planned(line), budget) for line in lines]


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
                    blocked.append(blocked_step(step.model, step.format, step.variant, step.repo_id, Refused(reason)))
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
    Raises :class:`Refused` if quantpress cannot use the model. Raises :class:`~quantpress.errors.Unreachable` if a Hub
    cannot be reached.
    """
    if line.skip:
        reason = f"skipped: {line.skip}"
        step = Step(model=line.repo, format="", variant="", repo_id="", action="skip", reason=reason)
        return _whole(catalog, line, step)
    source = look_up_source(hubs.source, line.repo, line.revision)
    source = replace(source, record=require_permission(source.record, line.licence_override))
    require_known_type(source.config)
    require_language_model(source.config, source.record.files)
    amount, gates = catalog.calibration_of(line), catalog.gates_of(line)
    texts = texts_for(amount.text)
    protocol = current_protocol(source, settings, texts.evaluation)
    conditions = Conditions(recipe_calibration(texts, amount), protocol, gates)
    plans = []
    for format_name in catalog.formats_of(line):
        if formats is not None and format_name not in formats:
            continue
        repo_id = f"{settings.namespace}/{model_name(line.repo)}-{quantizer(format_name).suffix}"
        chosen = quantizer(format_name, catalog.backend_of(line, format_name))
        shelf, card = Shelf(repo_id, {}, {}), None
        try:
            shelf = read_shelf(hubs.target, repo_id)
            card = _plan_cards(format_name, shelf, source)
            shelf.require_ours("main")
            require_unquantized(source.config, format_name, traits_of(chosen).fp8_source)
            _require_wikitext(shelf, texts, amount, settings)
            names = catalog.variants_of(line, format_name, source.config)
            planned = plan_format(names, chosen, source, conditions, shelf, settings)
            reasons = catalog.left_out(line, format_name, source.config)
        except ENDS_THE_PLAN:
            raise
        except Exception as error:  # whatever happens to one format must not stop the others
            step = blocked_step(line.repo, format_name, "", repo_id, error)
            plans.append(without_bad(FormatPlan(format_name, shelf, (), (step,), card), chosen, source))
        else:
            steps = left_out(line.repo, format_name, repo_id, reasons)
            planned = replace(planned, blocked=planned.blocked + steps)
            plans.append(without_bad(planned, chosen, source))
    comparison = _plan_comparison(line.repo, settings, plans, hubs.target)
    return ModelPlan(line, source, texts, amount, gates, tuple(plans), (), comparison)


def _whole(catalog: Catalog, line: ModelLine, step: Step) -> ModelPlan:
    """Returns the plan of a model that is skipped or blocked as a whole, for the reason in ``step``."""
    return ModelPlan(line, None, None, catalog.calibration_of(line), catalog.gates_of(line), (), (step,))


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


def _plan_comparison(model: str, settings: Settings, plans: list[FormatPlan], target_hub: HfApi) -> Step | None:
    repo_id = comparison_repo(settings.namespace, model_name(model))
    shelves = [each.shelf for each in plans]
    manifests = {each.repo_id: each.manifests["main"] for each in shelves if "main" in each.manifests}
    try:
        reason = why_outdated(target_hub, repo_id, manifests)
        if reason is None:
            return None
        read_shelf(target_hub, repo_id).require_ours("main")
    except ENDS_THE_PLAN:
        raise
    except Exception as error:  # the formats do not need their comparison
        return blocked_step(model, "", "", repo_id, error)
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
            blocked.append(blocked_step(repo, format_name, name, repo_id, refusal))
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
            blocked.append(blocked_step(repo, format_name, name, repo_id, too_large(estimate, budget)))
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
