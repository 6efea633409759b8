"""Rounds weights to 8 bits as two papers describe. The code is short and not fast.

- Dettmers, Lewis, Belkada, Zettlemoyer, "LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale",
  arXiv:2208.07339. Section 2.1 describes absmax and zero-point, section 3 the decomposition.
- Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
  arXiv:1712.05877. Equation 1 and sections 2.1 and 3 describe zero points.

Only tests and code that runs in a child process import this module.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: int8 without its smallest value, so that the levels lie evenly on both sides of zero (arXiv:2208.07339, 2.1).
LARGEST = 127


@dataclass(frozen=True)
class QuantizedMatrix:
    """A weight matrix, rounded to int8. Each weight is ``(level - zero) * scale``.

    ``levels`` is int8 and has the weight matrix's shape ``[out, in]``. ``scale`` and ``zero`` are float32 and broadcast
    to this shape. Their own shape is ``[out, 1]`` if each output channel has a scale, or ``[1, 1]`` if there is one
    scale for all weights.
    """

    levels: Tensor
    scale: Tensor
    zero: Tensor

    def dequantize(self) -> Tensor:
        """Returns the weights as float32, in the original shape."""
        return (self.levels.float() - self.zero) * self.scale


def absmax(weight: Tensor, *, per_channel: bool) -> QuantizedMatrix:
    """Rounds symmetrically: ``levels = round(127 / max|W| * W)``, so ``scale = max|W| / 127`` and ``zero = 0``.

    ``weight`` is float32 ``[out, in]``. The error of a weight is at most half a scale. See arXiv:2208.07339, section
    2.1, "Absmax quantization". If ``per_channel`` is true, each row of the weight has its own maximum. The paper calls
    this "vector-wise" quantization (section 3.1).
    """
    scale = _over(weight.abs(), "amax", per_channel) / LARGEST
    scale = torch.where(scale > 0, scale, 1.0)
    levels = (weight / scale).round().clamp(-LARGEST, LARGEST)
    return QuantizedMatrix(levels.to(torch.int8), scale, torch.zeros_like(scale))


def zeropoint(weight: Tensor, *, per_channel: bool) -> QuantizedMatrix:
    """Rounds with an offset: int8's 255 steps span the range from the smallest to the largest weight.

    ``scale = (max W - min W) / 255``; ``zero = round(-128 - min W / scale)``; ``levels = round(W / scale) + zero``.
    ``weight`` is float32 ``[out, in]``. The range is widened to include 0. So 0 is exactly a level (arXiv:1712.05877,
    section 2.1), and the zero point fits into int8. The error of a weight is at most half a scale, also at the ends of
    the range, because ``zero`` is a whole number and adds no rounding error. See arXiv:2208.07339, section 2.1,
    "Zeropoint quantization" (the paper has 254 steps), and arXiv:1712.05877, equation 1:
    ``W = scale * (levels - zero)``.
    """
    low = _over(weight, "amin", per_channel).clamp(max=0)
    high = _over(weight, "amax", per_channel).clamp(min=0)
    scale = (high - low) / 255
    scale = torch.where(scale > 0, scale, 1.0)
    zero = (-128 - low / scale).round()
    levels = ((weight / scale).round() + zero).clamp(-128, 127)
    return QuantizedMatrix(levels.to(torch.int8), scale, zero)


def outlier_columns(inputs: Tensor, threshold: float) -> Tensor:
    """Returns which features have an outlier, as bool ``[in]``: ``O = {i : some |X_ti| >= threshold}``.

    ``inputs`` has the shape ``[tokens, in]``. See arXiv:2208.07339, section 3.2. The paper's threshold is 6.
    """
    return inputs.abs().amax(0) >= threshold


def llm_int8_product(inputs: Tensor, weight: Tensor, threshold: float = 6.0) -> Tensor:
    """Computes ``X W'`` as LLM.int8() does: outlier features in full precision, all other features in int8.

    arXiv:2208.07339, equation 8::

        C  =  sum over h in O of  X_h W_h   +   S * ( sum over h not in O of  X8_h W8_h )

    ``O`` are the outlier features. ``X8`` and ``W8`` are the inputs and the weight without the outlier features,
    rounded by absmax. ``X8`` has a scale per token (row). ``W8`` has a scale per output channel. ``S`` is the outer
    product of these scales. ``inputs`` (``X``) is float32 ``[tokens, in]``, and ``weight`` (``W``) is float32
    ``[out, in]``. Returns float32 ``[tokens, out]``.
    """
    outliers = outlier_columns(inputs, threshold)
    exact = inputs[:, outliers] @ weight[:, outliers].T
    if outliers.all():
        return exact
    x8 = absmax(inputs[:, ~outliers], per_channel=True)
    w8 = absmax(weight[:, ~outliers], per_channel=True)
    # int8 products are summed in int32, as the hardware does.
    products = x8.levels.to(torch.int32) @ w8.levels.to(torch.int32).T
    return exact + x8.scale * w8.scale.T * products.float()


def decomposed_weight(weight: Tensor, outliers: Tensor) -> Tensor:
    """Rounds the weight as :func:`llm_int8_product` does, for a fixed set of outlier features.

    If ``outliers`` (bool ``[in]``) marks a column, the column stays unchanged. All other columns are rounded to int8
    and back by absmax, with a scale per output channel. This scale is computed without the outlier columns. ``weight``
    and the result are float32 ``[out, in]``.
    """
    rounded = weight.clone()
    if not outliers.all():
        rounded[:, ~outliers] = absmax(weight[:, ~outliers], per_channel=True).dequantize()
    return rounded


def _over(values: Tensor, reduction: str, per_channel: bool) -> Tensor:
    """Returns ``amin`` or ``amax`` (the ``reduction``) of each row, shape ``[out, 1]``, or of the whole matrix, shape
    ``[1, 1]``."""
    reduced: Tensor = getattr(values, reduction)(dim=1 if per_channel else (0, 1), keepdim=True)
    return reduced
