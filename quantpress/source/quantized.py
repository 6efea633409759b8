"""Finds out whether a source is quantized already, from its config.json.

Whoever quantizes such a source makes a copy of a copy: the unquantized model that the figures should compare with is
not there. So the plan blocks such a source. The exception is FP8 in blocks, because some makers publish no other
weights of their models (DeepSeek-V3). Such weights can be dequantized (:mod:`quantpress.source.dequantize`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from quantpress.errors import Refused
from quantpress.source.config import values_of
from quantpress.text import one_line

#: What a format does with a source in FP8 blocks. ``blocked``: it takes no such source. ``read``: its own tools read
#: FP8. ``dequantized``: it takes the dequantized source.
Fp8Source = Literal["blocked", "read", "dequantized"]

#: The keys under which config.json describes quantized weights. compressed-tensors wrote the second key before it used
#: the first (transformers 5.17, modeling_utils.py).
KEYS = ("quantization_config", "compression_config")
_FP8 = "fp8"


@dataclass(frozen=True)
class Quantization:
    """How a source's weights are quantized.

    ``method`` is the ``quant_method`` of its config.json, cleaned. ``block`` is the number of rows and columns of a
    block of weights that share a scale, if config.json names it. ``scaled_inputs`` says whether the file also has fixed
    scales for the inputs of linears.
    """

    method: str
    block: tuple[int, int] | None = None
    scaled_inputs: bool = False

    @property
    def is_fp8_blocks(self) -> bool:
        """Whether the weights are 8-bit floats with a scale per block, and nothing else is quantized."""
        return self.method == _FP8 and self.block is not None and not self.scaled_inputs

    @property
    def in_words(self) -> str:
        """How the weights are stored, for example ``fp8, in blocks of 128 x 128``."""
        return self.method if self.block is None else f"{self.method}, in blocks of {self.block[0]} x {self.block[1]}"


def quantization_of(config: Mapping[str, Any]) -> Quantization | None:
    """Returns how a model's weights are quantized, or None if its config.json does not say that they are.

    In a model of several parts, the config of a part can say it.
    """
    found = (value for key in KEYS for value in values_of(config, key))
    given = next((value for value in found if isinstance(value, Mapping) and value), None)
    if given is None:
        return None
    # NVIDIA's ModelOpt names its algorithm and itself, and can leave the method out.
    named = (given.get(key) for key in ("quant_method", "quant_algo"))
    method = next((one_line(name) for name in named if isinstance(name, str) and one_line(name)), "no method is named")
    return Quantization(method, _block(given.get("weight_block_size")), given.get("activation_scheme") == "static")


def _block(size: object) -> tuple[int, int] | None:
    match size:
        case [int(rows), int(columns)] if rows > 0 and columns > 0:
            return rows, columns
    return None


def require_unquantized(config: Mapping[str, Any], format_name: str, fp8_source: Fp8Source) -> None:
    """Raises :class:`Refused` if the source is quantized already, unless it is in FP8 blocks and the format takes such
    a source."""
    found = quantization_of(config)
    if found is None or (found.is_fp8_blocks and fp8_source != "blocked"):
        return
    remedy = "use gguf, gptq or awq" if found.is_fp8_blocks else "name the model that it was made from"
    raise Refused(
        f"the source is quantized already ({found.in_words}), and {format_name} is made of unquantized models: {remedy}"
    )
