"""The ``exl3`` format, by ExLlamaV3: trellis-coded weights. CUDA only."""

from __future__ import annotations

from quantizers.exllama_format import ExLlamaFormat
from quantizers.protocol import Job, Output, Parameters, Variant
from quantpress.errors import Refused
from quantpress.evaluation.record import Engine
from quantpress.toolchain.exllama import EXLLAMAV3

#: Linears are padded to multiples of this, and what the padded ones write does not fit the residual stream (seen with
#: 1.6.5 on SmolLM2, whose hidden_size is 576: it fails at the first layer).
_TILE = 128


class EXL3(ExLlamaFormat):
    """Implements :class:`quantizers.protocol.Quantizer`."""

    format = "exl3"
    suffix = "exl3"
    engine: Engine = "exllamav3"
    package = EXLLAMAV3
    head_bits = (1, 2, 3, 4, 5, 6, 7, 8, 16)

    def variant(self, name: str, config: Parameters) -> Variant:
        found = super().variant(name, config)
        hidden = config.get("text_config", config).get("hidden_size")
        if isinstance(hidden, int) and hidden % _TILE:
            raise Refused(f"ExLlamaV3 takes no hidden_size that {_TILE} does not divide, and it is {hidden}: use exl2")
        return found

    def quantize(self, job: Job) -> Output:
        from quantizers.exl3_backend import quantize_exl3

        return quantize_exl3(job)
