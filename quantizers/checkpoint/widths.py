"""Checks group sizes against a model's widths. The widths are read from config.json before any work starts.

A width is the number of inputs of a linear. (:func:`output_widths` counts outputs too.) A group is a run of
neighbouring weights in a row of a linear that share a scale. So the group size must divide the width of every quantized
linear.
"""

from __future__ import annotations

from quantizers.protocol import Parameters
from quantpress.errors import Refused
from quantpress.source.config import TextConfig, model_config, single

#: The group sizes that the kernels for GPTQ and AWQ support (vLLM, ExLlama, Marlin), the largest first.
GROUP_SIZES = (128, 64, 32)
#: The group size that means a whole row: one scale per row. It fits every width.
WHOLE_ROW = -1

#: GPTQ's checkpoints pack the weights of 32 inputs together into whole 32-bit words, at any number of bits. They also
#: pack the zero points of 32 outputs together (GPTQModel 7.6.0, ``pack_block`` of nn_modules/qlinear/__init__.py;
#: AutoGPTQ 0.7.1, qlinear_cuda_old.py).
PACKED_TOGETHER = 32

#: Maps a key of config.json that holds a width to a description of the linears that have this width.
_WIDTH_KEYS = {
    "hidden_size": "inputs of attention, gate and up projections",
    "intermediate_size": "inputs of down projections",
    "moe_intermediate_size": "inputs of the experts' down projections",
    "shared_expert_intermediate_size": "inputs of the shared expert's down projections",
}


def input_widths(config: Parameters) -> dict[str, int]:
    """Returns a dict from a description of linears in a model's layers to the number of inputs of these linears.

    Raises :class:`Refused` if config.json names none of the widths.
    """
    text = model_config(config).text
    widths: dict[str, int] = {}
    for key, kind in _WIDTH_KEYS.items():
        for width in getattr(text, key):
            if width > 0:
                widths[f"{key} {width}, {kind}"] = width
    if size := _head_size(text):
        attention = (single(text.num_attention_heads) or 0) * size
        widths[f"attention width {attention}, inputs of attention's output projections"] = attention
    if not widths:
        raise Refused("config.json names no hidden_size: group sizes cannot be checked for this architecture")
    return widths


def _head_size(text: TextConfig) -> int | None:
    """Returns the width of one attention head, or None if config.json does not say it."""
    heads, hidden = single(text.num_attention_heads), single(text.hidden_size)
    return single(text.head_dim) or hidden // heads if heads and hidden is not None else None


def dividing(config: Parameters) -> list[int]:
    """Returns the group sizes that divide all of a model's widths, the largest first. The list can be empty."""
    widths = input_widths(config).values()
    return [size for size in GROUP_SIZES if all(width % size == 0 for width in widths)]


def check_group_size(config: Parameters, group_size: int) -> None:
    """Raises :class:`Refused` if ``group_size`` does not divide all of a model's widths. The message names a width that
    ``group_size`` does not divide."""
    if group_size == WHOLE_ROW:
        return
    for kind, width in input_widths(config).items():
        if width % group_size:
            raise Refused(f"group size {group_size} does not divide {kind}: use {_choices(config)}")


def output_widths(config: Parameters) -> dict[str, int]:
    """Returns the dict of :func:`input_widths` and an entry for the outputs of the key and value projections.

    The number of outputs of any other linear is one of the input widths, so the dict already holds this number.
    """
    text = model_config(config).text
    widths, shared = input_widths(config), single(text.num_key_value_heads)
    if shared is not None and (size := _head_size(text)):
        width = shared * size
        widths[f"key and value width {width}, outputs of attention's key and value projections"] = width
    return widths


def check_divisible(config: Parameters, divisor: int, why: str) -> None:
    """Raises :class:`Refused` if ``divisor`` does not divide all numbers of inputs and outputs of the layers' linears.

    The message names a number that ``divisor`` does not divide. ``why`` is the end of the message, after "weights are".
    """
    for kind, width in output_widths(config).items():
        if width % divisor:
            raise Refused(f"{kind}, is not divisible by {divisor}: weights are {why}")


def largest_group_size(config: Parameters) -> int:
    """Returns the group size that ``auto`` means: the largest that divides all widths. Raises :class:`Refused` if no
    group size divides all widths."""
    sizes = dividing(config)
    if not sizes:
        kind, _ = min(input_widths(config).items(), key=lambda item: item[1] & -item[1])
        raise Refused(f"no group size of {', '.join(map(str, GROUP_SIZES))} divides {kind}: use -1 (a whole row)")
    return sizes[0]


def packed_bits(bits: int, group_size: int) -> float:
    """Returns the bits per weight of a quantized linear: the bits of the weight itself, and the weight's share of its
    group's scale (float16) and zero point (as many bits as a weight).

    If the group is a whole row, the share is negligible and is not counted.
    """
    return bits if group_size == WHOLE_ROW else bits + (16 + bits) / group_size


def _choices(config: Parameters) -> str:
    return " or ".join([*map(str, dividing(config)), "-1 (a whole row)"])
