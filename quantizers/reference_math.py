"""Rounding to 8 bits as three papers write it, a page each; nothing here is fast.

Papers: Dettmers, Lewis, Belkada, Zettlemoyer, "LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale",
arXiv:2208.07339 (section 2.1 is absmax and zero-point, section 3 the decomposition); Jacob et al., "Quantization and
Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", arXiv:1712.05877 (equation 1, and sections
2.1 and 3, on zero points).

Only what runs in a child process, and tests, import this module.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: int8 without its smallest value, so that the levels lie evenly on both sides of zero (arXiv:2208.07339, 2.1).
LARGEST = 127


@dataclass(frozen=True)
class QuantizedMatrix:
    """``levels`` int8, of the weight's shape; ``scale`` and ``zero`` float32 that broadcast to it: ``[out, 1]`` with a
    scale per output channel, ``[1, 1]`` with one for all. A weight is ``(level - zero) * scale``."""

    levels: Tensor
    scale: Tensor
    zero: Tensor

    def dequantize(self) -> Tensor:
        """float32, of the weight's shape."""
        return (self.levels.float() - self.zero) * self.scale


def absmax(weight: Tensor, *, per_channel: bool) -> QuantizedMatrix:
    """Symmetric rounding: ``levels = round(127 / max|W| * W)``, so ``scale = max|W| / 127`` and ``zero = 0``.

    ``weight`` is float32 ``[out, in]``. arXiv:2208.07339, section 2.1, "Absmax quantization"; a maximum for each row of
    the weight is the paper's "vector-wise" quantization of section 3.1. The error of a weight is at most half a scale.
    """
    scale = _over(weight.abs(), "amax", per_channel) / LARGEST
    scale = torch.where(scale > 0, scale, 1.0)
    levels = (weight / scale).round().clamp(-LARGEST, LARGEST)
    return QuantizedMatrix(levels.to(torch.int8), scale, torch.zeros_like(scale))


def zeropoint(weight: Tensor, *, per_channel: bool) -> QuantizedMatrix:
    """Affine rounding: int8's 255 steps span from the smallest to the largest weight.

    ``scale = (max W - min W) / 255``; ``zero = round(-128 - min W / scale)``; ``levels = round(W / scale) + zero``.
    ``weight`` is float32 ``[out, in]``. arXiv:2208.07339, section 2.1, "Zeropoint quantization" (with 254 steps there),
    and arXiv:1712.05877, equation 1: ``W = scale * (levels - zero)``. The range is widened to hold 0, which then is a
    level exactly (arXiv:1712.05877, section 2.1), and the zero point fits into int8. As ``zero`` is whole, it moves no
    weight against its level: the error of a weight is at most half a scale, at the ends of the range too.
    """
    low = _over(weight, "amin", per_channel).clamp(max=0)
    high = _over(weight, "amax", per_channel).clamp(min=0)
    scale = (high - low) / 255
    scale = torch.where(scale > 0, scale, 1.0)
    zero = (-128 - low / scale).round()
    levels = ((weight / scale).round() + zero).clamp(-128, 127)
    return QuantizedMatrix(levels.to(torch.int8), scale, zero)


def outlier_columns(inputs: Tensor, threshold: float) -> Tensor:
    """Which features have an outlier: ``O = {i : some |X_ti| >= threshold}``, bool ``[in]``, of ``inputs``
    ``[tokens, in]``. arXiv:2208.07339, section 3.2; the paper's threshold is 6."""
    return inputs.abs().amax(0) >= threshold


def llm_int8_product(inputs: Tensor, weight: Tensor, threshold: float = 6.0) -> Tensor:
    """``X W'`` by LLM.int8(): outlier features in full precision, all others in int8. arXiv:2208.07339, equation 8::

        C  =  sum over h in O of  X_h W_h   +   S * ( sum over h not in O of  X8_h W8_h )

    ``O`` are the outlier features; ``X8`` is ``X`` without them rounded by absmax with a scale per token (row), ``W8``
    the weight with a scale per output channel, and ``S`` the outer product of those scales. ``inputs`` is float32
    ``[tokens, in]``, ``weight`` float32 ``[out, in]``; returns float32 ``[tokens, out]``.
    """
    outliers = outlier_columns(inputs, threshold)
    exact = inputs[:, outliers] @ weight[:, outliers].T
    if outliers.all():
        return exact
    x8 = absmax(inputs[:, ~outliers], per_channel=True)
    w8 = absmax(weight[:, ~outliers], per_channel=True)
    # int8 products are summed in int32, as the hardware does it.
    products = x8.levels.to(torch.int32) @ w8.levels.to(torch.int32).T
    return exact + x8.scale * w8.scale.T * products.float()


def decomposed_weight(weight: Tensor, outliers: Tensor) -> Tensor:
    """The weight's part of :func:`llm_int8_product` for a fixed set of outlier features.

    Columns that ``outliers`` (bool ``[in]``) marks stay as they are; the rest goes to int8 and back by absmax with a
    scale per output channel, in which the outlier columns have no say. ``weight`` and the result are float32
    ``[out, in]``.
    """
    rounded = weight.clone()
    if not outliers.all():
        rounded[:, ~outliers] = absmax(weight[:, ~outliers], per_channel=True).dequantize()
    return rounded


def _over(values: Tensor, reduction: str, per_channel: bool) -> Tensor:
    """``amin`` or ``amax`` over each row, ``[out, 1]``, or over everything, ``[1, 1]``."""
    reduced: Tensor = getattr(values, reduction)(dim=1 if per_channel else (0, 1), keepdim=True)
    return reduced
