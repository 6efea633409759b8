"""Replaces GPTQModel's searches for AWQ's scales and AWQ's clipping bounds with faster searches.

All other work stays with GPTQModel 7.6: it walks the layers, captures inputs, applies scales and packs weights. On a
CPU, GPTQModel's own two searches took 80 s of wall time per layer of SmolLM2-135M, because they multiply elementwise in
float16. The searches in this module compute in float32. Their mathematics is AWQ's (Lin et al., arXiv:2306.00978, and
the autoawq package), with three differences:

- The scale search looks only at a sample of the calibration windows.
- The scale search also includes the case without any scaling among its candidates.
- The clipping search computes the error from the Gram matrix of the inputs over all calibration tokens. This works
  because the error is quadratic in the errors of the weights.

Only the quantizer's child process imports this module. If a change here changes the bytes of the files, raise the
edition in quantizers/awq/__init__.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from gptqmodel.looper import awq_processor
from torch import Tensor, nn

#: The search tries clipping bounds from a group's largest weight down to half of this weight (autoawq:
#: ``max_shrink=0.5``).
_LOWEST_BOUND = 0.5


@dataclass(frozen=True)
class Search:
    """How far to search: the number of tokens on which the scale search compares scales, and the number of steps that
    each search tries."""

    scale_tokens: int
    scale_steps: int
    clip_steps: int


def quantize_groups(weight: Tensor, bits: int) -> Tensor:
    """Rounds ``weight`` (float32 ``[..., group]``) to ``2**bits`` levels between the smallest and the largest weight of
    each group.

    As in AWQ, the zero point is clamped to the range of the levels (autoawq: ``pseudo_quantize_tensor``).
    """
    levels = 2**bits - 1
    low, high = weight.amin(-1, keepdim=True), weight.amax(-1, keepdim=True)
    scale = (high - low).clamp(min=1e-5) / levels
    zero = (-(low / scale).round()).clamp(0, levels)
    rounded: Tensor = (weight / scale).round().add(zero).clamp(0, levels).sub(zero).mul(scale)
    return rounded


def best_clipping(weight: Tensor, inputs: Tensor, bits: int, group_size: int, steps: int) -> Tensor:
    """Returns the clipping bounds that give the smallest error in each group's output: float32 ``[out, groups, 1]``.

    ``weight`` has the shape ``[out, in]``, and ``inputs`` has the shape ``[tokens, in]``. The error of a group's output
    is the mean of ``(x . d)**2`` over tokens. Here ``d`` is the error of the group's weights, and ``x`` are the group's
    inputs for one token. This mean is ``d G d`` with the Gram matrix ``G = mean(x x')``.
    """
    inputs = inputs.float().reshape(inputs.shape[0], -1, group_size).permute(1, 2, 0)
    gram = inputs @ inputs.transpose(1, 2) / inputs.shape[2]
    groups = weight.float().reshape(weight.shape[0], -1, group_size).transpose(0, 1).contiguous()
    largest = groups.abs().amax(-1, keepdim=True)
    best, least = largest.clone(), torch.full_like(largest, torch.inf)
    for step in range(steps):
        bound = largest * (1 - step / steps * (1 - _LOWEST_BOUND))
        wrong = quantize_groups(groups.clamp(-bound, bound), bits) - groups
        error = ((wrong @ gram) * wrong).sum(-1, keepdim=True)
        better = error < least
        least, best = torch.where(better, error, least), torch.where(better, bound, best)
    return best.transpose(0, 1).contiguous()


def candidate_scales(input_means: Tensor, weight_means: Tensor, steps: int) -> Iterator[Tensor]:
    """Yields ones (no scaling), and then AWQ's scales for ``steps`` ratios.

    At ratio 0, scales depend only on the magnitudes of the weights. At ratio 1, which is not tried, they would depend
    only on the magnitudes of the inputs.
    """
    yield torch.ones_like(input_means)
    for step in range(steps):
        ratio = step / steps
        scales = (input_means**ratio / (weight_means ** (1 - ratio) + 1e-4)).clamp(min=1e-4)
        scales = scales / (scales.max() * scales.min()).sqrt()
        yield torch.where(torch.isfinite(scales), scales, 1.0)


@contextmanager
def searching(search: Search) -> Iterator[None]:
    """Makes GPTQModel's AWQ use the searches of this module inside a ``with`` block."""
    theirs = awq_processor.AWQProcessor

    class SearchingProcessor(theirs):  # type: ignore[misc, valid-type]  # GPTQModel has no type hints
        """Overrides the clipping search, which GPTQModel calls for each linear, and the scale search, which GPTQModel
        calls for each group of linears with the same inputs."""

        @torch.inference_mode()
        def _compute_best_clip(self, w: Tensor, input_feat: Tensor, **_: Any) -> Tensor:
            inputs = input_feat.reshape(-1, input_feat.shape[-1]).to(w.device)
            return best_clipping(w, inputs, self.qcfg.bits, self.qcfg.group_size, search.clip_steps).to(w.dtype)

        @torch.inference_mode()
        def _compute_best_scale(self, x: Tensor, w_mean: Tensor, x_mean: Tensor, *rest: Any) -> tuple[Tensor, float]:
            module2inspect: nn.Module
            linears2scale: list[nn.Linear]
            module2inspect, linears2scale, _fp16_output, kwargs = rest
            device, dtype = linears2scale[0].weight.device, linears2scale[0].weight.dtype
            inputs = _sample(x, search.scale_tokens).float().to(device)
            options = self._align_module_kwargs_to_input(inputs, _as_float32(kwargs))
            stored = [linear.weight.data for linear in linears2scale]
            exact = [weight.float() for weight in stored]
            module2inspect.float()
            wanted = self._module_forward(inputs, module2inspect, options)
            best, least = torch.ones_like(x_mean, dtype=torch.float32), float("inf")
            input_means, weight_means = (mean.reshape(-1).float().to(device) for mean in (x_mean, w_mean))
            try:
                for scales in candidate_scales(input_means, weight_means, search.scale_steps):
                    for linear, weight in zip(linears2scale, exact, strict=True):
                        groups = (weight * scales).reshape(weight.shape[0], -1, self.qcfg.group_size)
                        linear.weight.data = quantize_groups(groups, self.qcfg.bits).reshape(weight.shape) / scales
                    error = float((self._module_forward(inputs, module2inspect, options) - wanted).square().mean())
                    if error < least:
                        best, least = scales, error
            finally:
                module2inspect.to(dtype)
                for linear, weight in zip(linears2scale, stored, strict=True):
                    linear.weight.data = weight
            return best.to(dtype).cpu(), least

    awq_processor.AWQProcessor = SearchingProcessor
    try:
        yield
    finally:
        awq_processor.AWQProcessor = theirs


def _sample(inputs: Tensor, tokens: int) -> Tensor:
    """Returns evenly spread windows of ``inputs`` (``[windows, length, in]``) with at most ``tokens`` tokens in total.

    If one window alone has more tokens, cuts the window.
    """
    inputs = inputs if inputs.dim() == 3 else inputs.reshape(1, -1, inputs.shape[-1])
    count = min(inputs.shape[0], max(1, tokens // inputs.shape[1]))
    chosen = torch.arange(count) * inputs.shape[0] // count
    return inputs[chosen.to(inputs.device), :tokens]


def _as_float32(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: _as_float32(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_as_float32(item) for item in value)
    return value
