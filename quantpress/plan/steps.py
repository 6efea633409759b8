"""The plan is a list of steps, each with its reason. The steps make what the catalog asks for and the published
manifests do not show yet.

Only the catalog and these manifests decide what a run does. A press is a run that makes and publishes variants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydantic import ByteSize

from quantizers.protocol import Variant
from quantpress.catalog.schema import CalibrationLine, GateLine, ModelLine
from quantpress.evaluation.text import Texts
from quantpress.evaluation.windows import logits_bytes, windows_within
from quantpress.plan.decide import Action
from quantpress.plan.estimate import Estimate, estimate_variant
from quantpress.record.base import Record
from quantpress.record.recipe import Recipe
from quantpress.record.shelf import Shelf
from quantpress.settings import Settings
from quantpress.source.quantized import quantization_of
from quantpress.source.source import Source

#: If the settings name no disk budget, variants may use this share of the disk that is left for them. The rest is a
#: reserve for files whose size is not estimated: an imatrix, a projector and logs.
_SHARE_OF_ROOM = 0.9
#: The actions that a run carries out. The other actions leave everything as it is.
WORK: tuple[Action, ...] = ("press", "refresh", "evaluate", "verify", "card", "compare")


class Step(Record):
    """An action and its reason. Most steps are for one variant of one model.

    In a step for a whole model or for its comparison, ``format`` and ``variant`` are empty. In a step for a whole
    format, only ``variant`` is empty.
    """

    model: str
    format: str
    variant: str
    repo_id: str
    action: Action
    reason: str
    estimate: Estimate | None = None


@dataclass(frozen=True)
class VariantPlan:
    """A variant with its recipe and its step."""

    variant: Variant
    recipe: Recipe
    step: Step


@dataclass(frozen=True)
class FormatPlan:
    """The plan of one format of a model. ``shelf`` is what the format's repo on the target Hub holds now.

    ``variants`` holds the variants that can be made. ``blocked`` holds the steps of variants that are blocked, deferred
    or left out. ``card`` is the step to commit outdated cards again, or None.
    """

    format: str
    shelf: Shelf
    variants: tuple[VariantPlan, ...]
    blocked: tuple[Step, ...]
    card: Step | None = None

    @property
    def repo_id(self) -> str:
        return self.shelf.repo_id

    def _to(self, action: Action) -> list[VariantPlan]:
        return [variant for variant in self.variants if variant.step.action == action]

    @property
    def to_press(self) -> list[VariantPlan]:
        """Variants to quantize."""
        return self._to("press")

    @property
    def to_evaluate(self) -> list[VariantPlan]:
        """Published variants to measure again, because the protocol has changed."""
        return self._to("evaluate")

    @property
    def to_refresh(self) -> list[VariantPlan]:
        """Published variants that get new metadata and keep their weights."""
        return self._to("refresh")

    @property
    def to_make(self) -> list[VariantPlan]:
        """Variants to quantize, to give new metadata, or to measure. All these actions need the source's weights."""
        return [*self.to_press, *self.to_refresh, *self.to_evaluate]

    @property
    def to_verify(self) -> list[VariantPlan]:
        """Published variants that the last verification did not find sound, or that were never verified."""
        return self._to("verify")

    @property
    def standing(self) -> list[VariantPlan]:
        """Published variants whose files stay, and that share their preparation with a variant to quantize.

        The preparation is what all variants of a format share, for example an imatrix.
        """
        shared = {variant.recipe.preparation_fingerprint for variant in self.to_press}
        published = [*self._to("keep"), *self._to("verify"), *self._to("evaluate"), *self._to("card")]
        return [
            variant
            for variant in published
            if variant.recipe.preparation_fingerprint in shared
            and (entry := self.shelf.entry(variant.variant.name, variant.variant.branch)) is not None
            and entry.status == "published"
        ]

    @property
    def cards_outdated(self) -> bool:
        """Whether the repo's cards and manifest must be committed again."""
        return bool(self.card or self._to("card"))

    @property
    def cards_only(self) -> bool:
        """Whether there is work that neither makes nor measures a variant. Such work verifies variants, or commits
        cards and manifest."""
        return self.cards_outdated or bool(self.to_verify)

    @property
    def has_work(self) -> bool:
        return bool(self.to_make or self.cards_only)

    def pressing(self, reasons: Mapping[str, str]) -> FormatPlan:
        """Returns this plan with the action ``press`` for each variant in ``reasons``, a dict from variant to
        reason."""

        def pressed(planned: VariantPlan) -> VariantPlan:
            reason = reasons.get(planned.variant.name)
            if reason is None:
                return planned
            return replace(planned, step=planned.step.model_copy(update={"action": "press", "reason": reason}))

        return replace(self, variants=tuple(map(pressed, self.variants)))


@dataclass(frozen=True)
class ModelPlan:
    """The plan of one model. ``other_steps`` are the steps that belong to no format.

    If the whole model is skipped or blocked, ``source`` and ``texts`` are None. ``amount`` says how much calibration
    text is used. ``gates`` holds the gate limits that the catalog changes.
    """

    line: ModelLine
    source: Source | None
    texts: Texts | None
    amount: CalibrationLine
    gates: Mapping[str, GateLine]
    formats: tuple[FormatPlan, ...]
    other_steps: tuple[Step, ...]
    #: The step for the comparison of the model's formats, if the comparison is outdated or blocked.
    comparison: Step | None = None
    #: The bytes that this model may upload, as a part of the run's upload budget. None if the run has no budget.
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

    @property
    def obstacles(self) -> list[str]:
        """One line for each blocked step. The line says what is blocked, and why."""
        return [f"{step.model} {step.format} {step.variant}".strip() + f": {step.reason}" for step in self.blocked]

    @property
    def deferred(self) -> list[Step]:
        """Steps of variants that are left to a later run."""
        return [step for step in self.steps if step.action == "defer"]

    @property
    def _estimates(self) -> list[Estimate]:
        """Estimates of the variants to make or measure. They include variants that are only measured again, because
        the files of these variants are downloaded first."""
        if self.source is None:
            return []
        to_make = [each.variant for made in self.formats for each in made.to_make]
        return [estimate_variant(self.source, variant) for variant in to_make]

    def disk_needed(self, settings: Settings) -> int:
        """Returns the bytes of disk for the source, the unquantized GGUF, the log-probabilities and the variants.

        If the settings name a disk budget, the variants need no more than this budget, because only as many variants
        lie on the disk at a time as the budget allows.
        """
        variants = sum(estimate.upload for estimate in self._estimates)
        if settings.disk_budget is not None:
            variants = min(variants, settings.disk_budget)
        return self._disk_beside_variants(settings) + variants

    def within_disk(self, settings: Settings, room: int) -> Settings:
        """Returns the settings with a disk budget. If the settings name a disk budget already, or if there is nothing
        to make or measure, returns the settings unchanged.

        The budget is ``room`` bytes, minus the source, the unquantized GGUF, the log-probabilities and a reserve. The
        budget is never smaller than the largest variant.
        """
        if settings.disk_budget is not None or not self._estimates:
            return settings
        left = int((room - self._disk_beside_variants(settings)) * _SHARE_OF_ROOM)
        budget = max(left, *(estimate.upload for estimate in self._estimates))
        return settings.model_copy(update={"disk_budget": ByteSize(budget)})

    def _disk_beside_variants(self, settings: Settings) -> int:
        """Returns the bytes for the source, the unquantized GGUF, and the log-probabilities of two engines."""
        if self.source is None or not self._estimates:
            return 0
        windows = windows_within(self.source, settings.windows, settings.logits_budget)
        logits = 2 * logits_bytes(self.source, windows)
        # The dequantized source takes as much as the unquantized GGUF.
        copies = 1 if quantization_of(self.source.config) is None else 2
        return self.source.weight_bytes + copies * max(each.disk for each in self._estimates) + logits

    @property
    def has_work(self) -> bool:
        outdated = self.comparison is not None and self.comparison.action == "compare"
        return outdated or any(each.has_work for each in self.formats)
