"""Decides which rungs are made together: as many as fit the disk budget, first those that share quantized tensors."""

from __future__ import annotations

from collections.abc import Sequence

from quantizers.gguf.dry_run import PlannedTensor
from quantizers.gguf.rung_plan import RungPlan


def disk_needed(wave: Sequence[RungPlan], split_above: int | None) -> int:
    """The most bytes that a wave's files take on the disk at any time.

    Files above ``split_above`` bytes are split one after the other. For a while, each lies beside its parts.
    """
    sizes = [plan.file_bytes for plan in wave]
    split = [size for size in sizes if split_above is not None and size > split_above]
    return sum(sizes) + max(split, default=0)


def cut_waves(plans: Sequence[RungPlan], budget: int | None, split_above: int | None = None) -> list[list[RungPlan]]:
    """Divides ``plans`` into waves that need at most ``budget`` bytes of disk each (None: one wave).

    A wave starts with the first remaining rung. It then adds, one by one, the rung that shares the most quantized
    weights with it. A rung that llama-quantize has to make is a separate wave. A single plan must not need more than
    the budget.
    """
    together = [plan for plan in plans if plan.by_llama_quantize is None]
    waves = [[plan] for plan in plans if plan.by_llama_quantize is not None]
    while together:
        wave = [together.pop(0)]
        made = _quantized(wave[0])
        while True:
            fitting = [plan for plan in together if budget is None or disk_needed([*wave, plan], split_above) <= budget]
            if not fitting:
                break
            nearest = max(fitting, key=lambda plan: sum(each.elements for each in _quantized(plan) & made))
            together.remove(nearest)
            wave.append(nearest)
            made |= _quantized(nearest)
        waves.append([plan for plan in plans if plan in wave])
    return waves


def _quantized(plan: RungPlan) -> set[PlannedTensor]:
    """The tensors that are not copied, each with its type."""
    return {tensor for tensor in plan.tensors if tensor.target != tensor.source}
