"""The plan: catalog minus manifests, a list of steps each with its reason. No other state decides anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from quantizers import quantizer
from quantizers.protocol import Quantizer, Variant
from quantpress.catalog import CalibrationLine, Catalog, GateLine, ModelLine, model_name, nearest
from quantpress.decision import Action, decide, decide_cards
from quantpress.device import require_device
from quantpress.errors import BadInput, Refused
from quantpress.estimate import Estimate, estimate_variant, logits_bytes, windows_within
from quantpress.evaluation.protocol import current_protocol
from quantpress.evaluation.text import EvaluationText, calibration_text
from quantpress.gate_limits import limit_of
from quantpress.licence import require_permission
from quantpress.published import Published, read_published
from quantpress.quota import UploadBudget
from quantpress.recipe import Calibration, Recipe
from quantpress.settings import Settings
from quantpress.source import Source, look_up_source

if TYPE_CHECKING:
    from huggingface_hub import HfApi


class Step(BaseModel):
    """One variant of one model, or a whole model that is skipped or blocked (``format`` and ``variant`` empty)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    format: str
    variant: str
    repo_id: str
    action: Action
    reason: str
    estimate: Estimate | None = None


@dataclass(frozen=True)
class VariantPlan:
    """A variant with its recipe and what is to be done with it."""

    variant: Variant
    recipe: Recipe
    step: Step


@dataclass(frozen=True)
class FormatPlan:
    """A format of a model: the target repo as it is now, its variants, and those that it cannot have.

    ``card`` is the step for cards that were made by other templates, if they were.
    """

    format: str
    published: Published
    variants: tuple[VariantPlan, ...]
    blocked: tuple[Step, ...]
    card: Step | None = None

    @property
    def repo_id(self) -> str:
        return self.published.repo_id

    def _to(self, action: Action) -> list[VariantPlan]:
        return [variant for variant in self.variants if variant.step.action == action]

    @property
    def to_press(self) -> list[VariantPlan]:
        """Variants to be quantized."""
        return self._to("press")

    @property
    def to_evaluate(self) -> list[VariantPlan]:
        """Published variants that are to be measured under another protocol."""
        return self._to("evaluate")

    @property
    def to_refresh(self) -> list[VariantPlan]:
        """Variants whose weights stay and whose metadata is made anew."""
        return self._to("refresh")

    @property
    def to_make(self) -> list[VariantPlan]:
        """Variants that are made or measured: for them the source's weights are needed."""
        return [*self.to_press, *self.to_refresh, *self.to_evaluate]

    @property
    def to_verify(self) -> list[VariantPlan]:
        """Variants that were published and of which nobody knows whether they arrived."""
        return self._to("verify")

    @property
    def cards_only(self) -> bool:
        """Whether cards and manifest must be committed whatever else there is to do."""
        return bool(self.card or self._to("card") or self.to_verify)

    @property
    def has_work(self) -> bool:
        return bool(self.to_make or self.cards_only)


@dataclass(frozen=True)
class ModelPlan:
    """A model: its source (none when skipped or blocked as a whole), formats, and steps that stand for no variant."""

    line: ModelLine
    source: Source | None
    calibration: EvaluationText | None
    amount: CalibrationLine
    gates: Mapping[str, GateLine]
    formats: tuple[FormatPlan, ...]
    other_steps: tuple[Step, ...]
    #: Bytes that the model may upload of the run's upload budget, if there is one.
    upload: int | None = None

    @property
    def steps(self) -> list[Step]:
        return [
            *self.other_steps,
            *(variant.step for each in self.formats for variant in each.variants),
            *(step for each in self.formats for step in each.blocked),
            *(each.card for each in self.formats if each.card is not None),
        ]

    @property
    def blocked(self) -> list[Step]:
        return [step for step in self.steps if step.action == "block"]

    def disk_needed(self, settings: Settings) -> int:
        """Bytes of disk for source, unquantized GGUF, log-probabilities of two engines, and variants at a time."""
        estimates = [step.estimate for step in self.steps if step.estimate is not None]
        if self.source is None or not estimates:
            return 0
        variants = sum(estimate.upload for estimate in estimates)
        if settings.disk_budget is not None:
            variants = min(variants, settings.disk_budget)
        windows = windows_within(self.source, settings.windows, settings.logits_budget)
        logits = 2 * logits_bytes(self.source, windows)
        return self.source.weight_bytes + max(each.disk for each in estimates) + logits + variants

    @property
    def has_work(self) -> bool:
        return any(each.has_work for each in self.formats)


def plan_catalog(
    catalog: Catalog,
    settings: Settings,
    source_hub: HfApi,
    target_hub: HfApi,
    *,
    only: str | None = None,
    formats: list[str] | None = None,
) -> list[ModelPlan]:
    """The plan of the catalog's models (or of one, or in some formats), by priority, then in the catalog's order.

    Raises :class:`BadInput` if no namespace is set or ``only`` is not in the catalog.
    """
    require_plannable(catalog, settings, only)
    lines = [line for line in catalog.models if only in (None, line.repo)]
    lines.sort(key=lambda line: -line.priority)
    budget = UploadBudget(settings.upload_budget)
    plans = (plan_model(catalog, line, settings, source_hub, target_hub, formats) for line in lines)
    return [_within(plan, budget) for plan in plans]


def _within(plan: ModelPlan, budget: UploadBudget) -> ModelPlan:
    """The plan without the variants that the upload budget has no bytes for, which are blocked."""
    formats = []
    for each in plan.formats:
        kept: list[VariantPlan] = []
        blocked = list(each.blocked)
        for variant in each.variants:
            step = variant.step
            if step.estimate is not None and (reason := budget.refusal(step.estimate.upload)):
                blocked.append(_blocked(step.model, step.format, step.variant, step.repo_id, Refused(reason)))
            else:
                kept.append(variant)
        formats.append(replace(each, variants=tuple(kept), blocked=tuple(blocked)))
    within = replace(plan, formats=tuple(formats))
    if budget.limit is None:
        return within
    return replace(within, upload=sum(step.estimate.upload for step in within.steps if step.estimate is not None))


def require_plannable(catalog: Catalog, settings: Settings, only: str | None) -> None:
    """Raises :class:`BadInput` if no namespace is set or ``only`` is not in the catalog; asks no Hub."""
    if not settings.namespace:
        raise BadInput("no namespace to publish under: set QUANTPRESS_NAMESPACE or 'namespace' in the settings")
    if only is not None and all(line.repo != only for line in catalog.models):
        raise BadInput(f"{only} is not in the catalog{nearest(only, [line.repo for line in catalog.models])}")


def plan_model(
    catalog: Catalog,
    line: ModelLine,
    settings: Settings,
    source_hub: HfApi,
    target_hub: HfApi,
    formats: list[str] | None,
) -> ModelPlan:
    """What is to be done for one line of the catalog. Reads both Hubs; changes nothing."""
    amount, gates = catalog.calibration_of(line), catalog.gates_of(line)

    def whole(action: Action, reason: str) -> ModelPlan:
        step = Step(model=line.repo, format="", variant="", repo_id="", action=action, reason=reason)
        return ModelPlan(line, None, None, amount, gates, (), (step,))

    if line.skip:
        return whole("skip", f"skipped: {line.skip}")
    try:
        source = look_up_source(source_hub, line.repo, line.revision)
        source = replace(source, record=require_permission(source.record, line.licence_override))
    except Refused as refusal:
        return whole("block", f"blocked: {refusal}")
    text = calibration_text(Path(amount.text) if amount.text else None, settings.home / "texts")
    calibration = Calibration(text=text.name, sha256=text.sha256, samples=amount.samples, length=amount.length)
    plans = []
    for format_name in catalog.formats_of(line):
        if formats is not None and format_name not in formats:
            continue
        repo_id = f"{settings.namespace}/{model_name(line.repo)}-{quantizer(format_name).suffix}"
        published = read_published(target_hub, repo_id)
        try:
            names = catalog.variants_of(line, format_name, source.config)
        except Refused as refusal:
            step = _blocked(line.repo, format_name, "", repo_id, refusal)
            plans.append(FormatPlan(format_name, published, (), (step,)))
            continue
        chosen = quantizer(format_name, catalog.backend_of(line, format_name))
        plans.append(plan_format(names, chosen, source, calibration, published, settings, gates))
    return ModelPlan(line, source, text, amount, gates, tuple(plans), ())


def plan_format(
    names: list[str],
    chosen: Quantizer,
    source: Source,
    calibration: Calibration,
    published: Published,
    settings: Settings,
    gates: Mapping[str, GateLine],
) -> FormatPlan:
    """What is to be done for variants of one format, by ``chosen``; ``published`` is the target repo."""
    budget, protocol = settings.disk_budget, current_protocol(source, settings)
    format_name, repo, repo_id = chosen.format, source.record.repo, published.repo_id
    variants, blocked = [], []
    for name in names:
        try:
            variant = chosen.variant(name, source.config)
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
            calibration=calibration,
        )
        limit = limit_of(variant.name, gates)
        action, reason = decide(recipe, variant.branch, source.record, published, limit, protocol)
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
    card = None
    if outdated := decide_cards(published):
        card = Step(model=repo, format=format_name, variant="", repo_id=repo_id, action="card", reason=outdated)
    return FormatPlan(format_name, published, tuple(variants), tuple(blocked), card)


def _too_large(estimate: Estimate, budget: int) -> Refused:
    return Refused(
        f"about {estimate.upload / 1e9:.2f} GB, more than the disk budget of {budget / 1e9:.2f} GB: "
        "raise QUANTPRESS_DISK_BUDGET or leave the variant out"
    )


def _blocked(model: str, format_name: str, variant: str, repo_id: str, refusal: Refused) -> Step:
    reason = f"blocked: {refusal}"
    return Step(model=model, format=format_name, variant=variant, repo_id=repo_id, action="block", reason=reason)
