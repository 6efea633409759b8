"""The ``exl2`` format of ExLlamaV2. It is GPTQ with several bit widths mixed in each layer. It needs CUDA.

ExLlamaV2 measures once per model how much accuracy each bit width costs in each layer. Every variant uses this
measurement to decide which layers get more bits.
"""

from __future__ import annotations

from pathlib import Path

from quantizers.exl.files import MEASUREMENT
from quantizers.exl.format import ExLlamaFormat
from quantizers.protocol import Job, Output
from quantizers.traits import Traits
from quantpress.record.measurement import Engine
from quantpress.toolchain.exllama import EXLLAMAV2


class EXL2(ExLlamaFormat):
    """Implements :class:`quantizers.protocol.Quantizer`."""

    format = "exl2"
    suffix = "exl2"
    engine: Engine = "exllamav2"
    package = EXLLAMAV2
    traits = Traits(toolchain=EXLLAMAV2.name)
    head_bits = (2, 3, 4, 5, 6, 8)

    def shared_files(self, job: Job) -> list[Path]:
        return [job.prepared / MEASUREMENT]

    def costly_files(self, model_name: str) -> list[str]:
        return [MEASUREMENT]

    def prepare(self, job: Job) -> None:
        from quantizers.exl.exl2_backend import measure_exl2

        measure_exl2(job)

    def quantize(self, job: Job) -> Output:
        from quantizers.exl.exl2_backend import quantize_exl2

        return quantize_exl2(job)
