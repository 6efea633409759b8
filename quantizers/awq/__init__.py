"""The ``awq`` format (4 bits, zero points, weights in AWQ's GEMM layout), made by GPTQModel."""

from __future__ import annotations

import re

from quantizers.checkpoint.widths import GROUP_SIZES, check_group_size, largest_group_size, packed_bits
from quantizers.gptqmodel.format import GPTQModelFormat
from quantizers.protocol import Job, Output, Parameters, Variant
from quantizers.traits import Traits

_NAME = re.compile(r"awq-4bit-(?P<group>128|64|32)g")
_AUTO = "awq-4bit-auto"
#: The edition of our search. The recipe holds this number, because GPTQModel's version says nothing about our search.
#: Raise the number when quantizers/gptqmodel/awq_search.py gives other bytes for equal parameters than before.
_SEARCH_EDITION = 1


class AWQ(GPTQModelFormat):
    """Implements :class:`quantizers.protocol.Quantizer`."""

    format = "awq"
    suffix = "AWQ"
    traits = Traits(core_seconds_per_weight=5.1e-6, fp8_source="dequantized")

    def ladders(self) -> dict[str, list[str]]:
        return {"default": [_AUTO]}

    def default_variants(self, config: Parameters) -> list[str]:
        return [self.variant(_AUTO, config).name]

    def variant(self, name: str, config: Parameters) -> Variant:
        self.check_name(name)
        self.check_architecture(config)
        if name == _AUTO:
            name = f"awq-4bit-{largest_group_size(config)}g"
        found = _NAME.fullmatch(name)
        assert found is not None  # check_name let it pass
        group_size = int(found["group"])
        check_group_size(config, group_size)
        return Variant(
            format=self.format,
            name=name,
            branch="main" if group_size == largest_group_size(config) else name,
            parameters=self.parameters(group_size),
            nominal_bits=packed_bits(4, group_size),
            needs_cuda=self.needs_cuda,
        )

    def parameters(self, group_size: int) -> Parameters:
        """Returns the settings for GPTQModel and for our search."""
        return {
            "bits": 4,
            "group_size": group_size,
            "zero_point": True,
            "version": "gemm",
            # Settings for the search in quantizers/gptqmodel/awq_search.py.
            "scale_search_tokens": 2048,
            "scale_search_steps": 10,
            "clip_search_steps": 10,
        }

    def known_names(self) -> list[str]:
        return [_AUTO, *(f"awq-4bit-{size}g" for size in GROUP_SIZES)]

    def version(self) -> str:
        return f"{super().version()}, quantpress search {_SEARCH_EDITION}"

    def quantize(self, job: Job) -> Output:
        from quantizers.gptqmodel.backend import quantize_awq

        return quantize_awq(job)
