"""Divides rungs (GGUF variants) into waves. A wave is a group of rungs that are made together. A wave holds as many
rungs as fit the disk budget. Rungs that share many quantized tensors preferably go into the same wave."""

from __future__ import annotations

from collections.abc import Sequence

from quantizers.gguf.dry_run import PlannedTensor
from quantizers.gguf.rung_plan import RungPlan


def disk_needed(wave: Sequence[RungPlan], split_above: int | None) -> int:
    """Returns the most bytes that a wave's files take on the disk at any time.

    Files above ``split_above`` bytes are split one after another. While a file is split, the file and its parts are
    both on the disk.
    """
    sizes = [plan.file_bytes for plan in wave]
    split = [size for size in sizes if split_above is not None and size > split_above]
    return sum(sizes) + max(split, default=0)


def cut_waves(plans: Sequence[RungPlan], budget: int | None, split_above: int | None = None) -> list[list[RungPlan]]:
    """Divides ``plans`` into waves that need at most ``budget`` bytes of disk each. If ``budget`` is None, there is no
    limit.

    A wave starts with the first remaining rung. Then, while a remaining rung still fits the budget, the wave takes the
    rung that shares the most quantized weights with the wave. Each rung that llama-quantize has to make is a wave of
    its own. The caller must pass no plan that alone needs more than the budget.
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
    """Returns the tensors whose type changes. All other tensors of a rung are copied."""
    return {tensor for tensor in plan.tensors if tensor.target != tensor.source}
