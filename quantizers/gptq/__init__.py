"""The ``gptq`` format, made by GPTQModel. Variants are published on branches, and are named as TheBloke named the
branches of his GPTQ repositories."""

from __future__ import annotations

import re

from quantizers.checkpoint.widths import (
    GROUP_SIZES,
    PACKED_TOGETHER,
    WHOLE_ROW,
    check_divisible,
    check_group_size,
    largest_group_size,
    packed_bits,
)
from quantizers.gptqmodel.format import GPTQModelFormat
from quantizers.protocol import Job, Output, Parameters, Variant
from quantizers.traits import Traits

_NAME = re.compile(r"gptq-(?P<bits>3|4|8)bit-(?P<group>-1|128|64|32)g-actorder_(?P<order>True|False)")
_AUTO = re.compile(r"gptq-(?P<bits>3|4|8)bit-auto")

#: The numbers of bits, the best-known number first.
_BITS = (4, 8, 3)

#: The branches of TheBloke's later repos (for example TheBloke/Llama-2-7B-GPTQ), plus a variant of 3 bits. The first
#: entry is the variant on TheBloke's branch ``main``.
_THEBLOKE = [
    "gptq-4bit-auto",
    "gptq-4bit-128g-actorder_True",
    "gptq-4bit-64g-actorder_True",
    "gptq-4bit-32g-actorder_True",
    "gptq-8bit--1g-actorder_True",
    "gptq-8bit-128g-actorder_True",
    "gptq-3bit-128g-actorder_True",
]


class GPTQ(GPTQModelFormat):
    """Implements :class:`quantizers.protocol.Quantizer`."""

    format = "gptq"
    suffix = "GPTQ"
    traits = Traits(core_seconds_per_weight=3.8e-6, fp8_source="dequantized")

    def ladders(self) -> dict[str, list[str]]:
        return {"default": ["gptq-4bit-auto"], "thebloke": list(_THEBLOKE)}

    def default_variants(self, config: Parameters) -> list[str]:
        return [self.variant("gptq-4bit-auto", config).name]

    def variant(self, name: str, config: Parameters) -> Variant:
        """Returns the variant that a name means for a model.

        ``auto`` means the largest group size that the model can have, without activation order. TheBloke's ``main`` has
        no activation order either.
        """
        self.check_name(name)
        self.check_architecture(config)
        if auto := _AUTO.fullmatch(name):
            name = f"gptq-{auto['bits']}bit-{largest_group_size(config)}g-actorder_False"
        found = _NAME.fullmatch(name)
        assert found is not None  # check_name let it pass
        bits, group_size = int(found["bits"]), int(found["group"])
        check_group_size(config, group_size)
        check_divisible(config, PACKED_TOGETHER, "packed into whole 32-bit words")
        activation_order = found["order"] == "True"
        default = bits == 4 and not activation_order and group_size == largest_group_size(config)
        return Variant(
            format=self.format,
            name=name,
            branch="main" if default else name,
            parameters=self.parameters(bits, group_size, activation_order),
            nominal_bits=packed_bits(bits, group_size),
            needs_cuda=self.needs_cuda,
        )

    def parameters(self, bits: int, group_size: int, activation_order: bool) -> Parameters:
        """Returns the settings for GPTQModel."""
        return {
            "bits": bits,
            "group_size": group_size,
            "desc_act": activation_order,
            # Without activation order, GPTQModel can still sort whole groups. For this, the file does not have to
            # store an order.
            "act_group_aware": not activation_order,
            "sym": True,
            "true_sequential": True,
            "damp_percent": 0.05,
            # GPTQModel searches for the scale of each group that gives the smallest sum of |error|**2.4 (the exponent
            # is gptq's own). The search is needed because symmetric levels end half a step below a group's largest
            # weight. Without the search, this costs more than calibration gains (docs/benchmarks.md).
            "mse": 2.4,
            "scale_search_steps": 10,
        }

    def known_names(self) -> list[str]:
        groups = (*GROUP_SIZES, WHOLE_ROW)
        return [f"gptq-{bits}bit-auto" for bits in _BITS] + [
            f"gptq-{bits}bit-{group}g-actorder_{order}" for bits in _BITS for group in groups for order in (True, False)
        ]

    def quantize(self, job: Job) -> Output:
        from quantizers.gptqmodel.backend import quantize_gptq

        return quantize_gptq(job)
