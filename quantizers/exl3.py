"""The ``exl3`` format, by ExLlamaV3: trellis-coded weights. CUDA only."""

from __future__ import annotations

from quantizers.exllama_format import ExLlamaFormat
from quantizers.protocol import Job, Output
from quantpress.evaluation.record import Engine
from quantpress.toolchain.exllama import EXLLAMAV3


class EXL3(ExLlamaFormat):
    """Implements :class:`quantizers.protocol.Quantizer`."""

    format = "exl3"
    suffix = "exl3"
    engine: Engine = "exllamav3"
    package = EXLLAMAV3
    head_bits = (1, 2, 3, 4, 5, 6, 7, 8, 16)

    def quantize(self, job: Job) -> Output:
        from quantizers.exl3_backend import quantize_exl3

        return quantize_exl3(job)
