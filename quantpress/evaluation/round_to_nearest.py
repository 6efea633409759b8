"""Quantizes a model in the simplest way: rounds each weight to the nearest level of its group.

Quantizers that calibrate are compared with this rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantpress.evaluation.engines.transformers import load_model, measure, tokenize
from quantpress.evaluation.job import EvaluationJob
from quantpress.record.measurement import Evaluation

if TYPE_CHECKING:
    from torch import Tensor


def evaluate_round_to_nearest(job: EvaluationJob, *, bits: int, group_size: int, symmetric: bool) -> Evaluation:
    """Measures ``job.model`` after rounding its linear layers, except the output head, in memory. Writes no weights.

    ``group_size`` is the number of neighbouring input weights that share a scale. -1 stands for a whole row.
    """
    text = tokenize(job.model, job.text, job.protocol.n_ctx, job.protocol.windows)
    model = load_model(job.model, job.device, job.threads)
    round_linears(model, bits=bits, group_size=group_size, symmetric=symmetric)
    return measure(model, text, job)


def round_linears(model: Any, *, bits: int, group_size: int, symmetric: bool) -> None:
    """Rounds every linear layer of a causal language model in place, except the output head."""
    import torch

    head = model.get_output_embeddings()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module is not head:
            module.weight.data = round_to_nearest(module.weight.data, bits, group_size, symmetric)


def round_to_nearest(weight: Tensor, bits: int, group_size: int, symmetric: bool) -> Tensor:
    """Rounds ``weight`` ``[out, in]`` to ``2**bits`` levels per group. The result has the same shape and dtype.

    If ``symmetric``, the levels lie around zero, ``2 * max|w| / (2**bits - 1)`` apart, as in GPTQ's checkpoints.
    Otherwise, the levels span a range that holds zero and all weights of the group, with an integer zero point.
    """
    import torch

    levels = 2**bits - 1
    groups = weight.reshape(-1, weight.shape[1] if group_size == -1 else group_size).float()
    if symmetric:
        scale = groups.abs().amax(1, keepdim=True).clamp(min=1e-8) * 2 / levels
        offset = torch.full_like(scale, 2 ** (bits - 1))
    else:
        low, high = groups.amin(1, keepdim=True).clamp(max=0), groups.amax(1, keepdim=True).clamp(min=0)
        scale = (high - low).clamp(min=1e-8) / levels
        offset = (-low / scale).round()
    steps = ((groups / scale).round() + offset).clamp(0, levels)
    rounded: Tensor = ((steps - offset) * scale).reshape(weight.shape).to(weight.dtype)
    return rounded
