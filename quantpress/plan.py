"""The plan: catalog minus manifests, a list of steps each with its reason. No other state decides anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydantic import BaseModel, ConfigDict

from quantizers.protocol import Variant
from quantpress.catalog import CalibrationLine, GateLine, ModelLine
from quantpress.decision import Action
from quantpress.estimate import Estimate, logits_bytes, windows_within
from quantpress.evaluation.text import EvaluationText
from quantpress.published import Published
from quantpress.recipe import Recipe
from quantpress.settings import Settings
from quantpress.source import Source


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

    def pressing(self, reasons: Mapping[str, str]) -> FormatPlan:
        """The same plan, but that the variants named are pressed, each for its reason."""

        def pressed(planned: VariantPlan) -> VariantPlan:
            reason = reasons.get(planned.variant.name)
            if reason is None:
                return planned
            return replace(planned, step=planned.step.model_copy(update={"action": "press", "reason": reason}))

        return replace(self, variants=tuple(map(pressed, self.variants)))


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
    #: The step for a comparison of the model's formats that is older than what it compares.
    comparison: Step | None = None
    #: Bytes that the model may upload of the run's upload budget, if there is one.
    upload: int | None = None

    @property
    def steps(self) -> list[Step]:
        return [
            *self.other_steps,
            *(variant.step for each in self.formats for variant in each.variants),
            *(step for each in self.formats for step in each.blocked),
            *(each.card for each in self.formats if each.card is not None),
            *([self.comparison] if self.comparison is not None else []),
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
        return self.comparison is not None or any(each.has_work for each in self.formats)
