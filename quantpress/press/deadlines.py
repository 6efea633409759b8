"""Says how long the work on a model may take: many times what the plan estimates, so that only work that never ends
meets a deadline."""

from __future__ import annotations

from quantizers.protocol import Variant
from quantpress.machine.watch import Limits
from quantpress.plan.estimate import estimate_variant, weight_count
from quantpress.plan.steps import ModelPlan
from quantpress.press.bench import Bench
from quantpress.settings import Settings

#: Seconds that every child may take. Reading a large model from a slow disk is in no estimate.
_LEAST = 7_200
#: Seconds for what is no child's work: downloads, uploads, and waiting for a Hub or for another press.
_BESIDE_CHILDREN = 86_400
#: Seconds in which one core takes one token through one weight. That takes two operations. PyTorch did 14 billion a
#: second on one core of x86_64 that other programs used too (a matrix product of 512 x 2048 x 2048, measured here).
_TOKEN_SECONDS = 1.5e-10


def limits(bench: Bench, *variants: Variant) -> Limits:
    """Returns the limits of a child that makes or measures ``variants``, or that works on the unquantized model.

    Any such child may take the model once through the texts for calibration and evaluation, and make its variants.
    """
    settings, amount = bench.settings, bench.amount
    tokens = bench.protocol.windows * bench.protocol.n_ctx + amount.samples * amount.length
    estimated = weight_count(bench.source) * tokens * _TOKEN_SECONDS
    estimated += sum(estimate_variant(bench.source, variant).core_seconds for variant in variants)
    return Limits(seconds=_deadline(settings, estimated / bench.threads, _LEAST), memory=settings.child_memory)


def of_model(plan: ModelPlan, settings: Settings) -> float | None:
    """Returns for how many seconds a model may be pressed, or None if the settings set no deadline."""
    estimated = sum(step.estimate.core_seconds for step in plan.steps if step.estimate is not None)
    return _deadline(settings, estimated / settings.thread_count(), _BESIDE_CHILDREN)


def _deadline(settings: Settings, seconds: float, beside: float) -> float | None:
    return beside + settings.deadline * seconds if settings.deadline else None
