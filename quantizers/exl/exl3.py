"""The ``exl3`` format of ExLlamaV3, whose weights are coded by a trellis. It needs CUDA."""

from __future__ import annotations

from quantizers.exl.format import ExLlamaFormat
from quantizers.protocol import Job, Output, Parameters, Variant
from quantizers.traits import Traits
from quantpress.errors import Refused
from quantpress.record.measurement import Engine
from quantpress.source.config import model_config, single
from quantpress.toolchain.exllama import EXLLAMAV3

#: ExLlamaV3 pads the widths of linear layers to multiples of this number. If a layer is padded, its output does not fit
#: the residual stream, and it does not fit the keys and values either. (Seen with ExLlamaV3 1.6.5 on SmolLM2, with a
#: hidden_size of 576, and with a hidden_size of 768 and 3 heads of 64. Both models fail at the first layer.)
_TILE = 128


class EXL3(ExLlamaFormat):
    """Implements :class:`quantizers.protocol.Quantizer`."""

    format = "exl3"
    suffix = "exl3"
    engine: Engine = "exllamav3"
    package = EXLLAMAV3
    traits = Traits(toolchain=EXLLAMAV3.name)
    head_bits = (1, 2, 3, 4, 5, 6, 7, 8, 16)

    def variant(self, name: str, config: Parameters) -> Variant:
        found = super().variant(name, config)
        text = model_config(config).text
        hidden, heads = single(text.hidden_size) or 0, single(text.num_attention_heads)
        size = single(text.head_dim) or hidden // (heads or 1)
        shared = single(text.num_key_value_heads) or heads or 0
        for what, width in (("hidden_size", hidden), ("width of keys and values", shared * size)):
            if width % _TILE:
                raise Refused(f"ExLlamaV3 needs a {what} that {_TILE} divides, and it is {width}: use exl2")
        return found

    def quantize(self, job: Job) -> Output:
        from quantizers.exl.exl3_backend import quantize_exl3

        return quantize_exl3(job)
