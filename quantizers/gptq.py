"""The ``gptq`` format, by GPTQModel. Variants are named, and are branches, as TheBloke had them."""

from __future__ import annotations

import re
from difflib import get_close_matches

from quantizers.gptqmodel_format import GPTQModelFormat
from quantizers.protocol import Job, Output, Parameters, Variant
from quantizers.widths import GROUP_SIZES, WHOLE_ROW, check_group_size, largest_group_size, packed_bits
from quantpress.errors import BadInput

_NAME = re.compile(r"gptq-(?P<bits>3|4|8)bit-(?P<group>-1|128|64|32)g-actorder_(?P<order>True|False)")
_AUTO = re.compile(r"gptq-(?P<bits>3|4|8)bit-auto")

#: The branches of TheBloke's later repos (TheBloke/Llama-2-7B-GPTQ), his ``main`` by its own name first.
_THEBLOKE = [
    "gptq-4bit-128g-actorder_True",
    "gptq-4bit-128g-actorder_False",
    "gptq-4bit-64g-actorder_True",
    "gptq-4bit-32g-actorder_True",
    "gptq-8bit--1g-actorder_True",
    "gptq-8bit-128g-actorder_True",
    "gptq-8bit-64g-actorder_True",
]


class GPTQ(GPTQModelFormat):
    """Implements :class:`quantizers.protocol.Quantizer`."""

    format = "gptq"
    suffix = "GPTQ"

    def ladders(self) -> dict[str, list[str]]:
        return {"default": ["gptq-4bit-auto"], "thebloke": list(_THEBLOKE)}

    def default_variants(self, config: Parameters) -> list[str]:
        return [self.variant("gptq-4bit-auto", config).name]

    def variant(self, name: str, config: Parameters) -> Variant:
        self.check_name(name)
        if auto := _AUTO.fullmatch(name):
            name = f"gptq-{auto['bits']}bit-{largest_group_size(config)}g-actorder_True"
        found = _NAME.fullmatch(name)
        assert found is not None  # check_name let it pass
        bits, group_size = int(found["bits"]), int(found["group"])
        check_group_size(config, group_size)
        activation_order = found["order"] == "True"
        default = bits == 4 and activation_order and group_size == largest_group_size(config)
        parameters: Parameters = {
            "bits": bits,
            "group_size": group_size,
            "desc_act": activation_order,
            # Without activation order GPTQModel still sorts whole groups; the file needs no order then.
            "act_group_aware": not activation_order,
            "sym": True,
            "true_sequential": True,
            "damp_percent": 0.05,
            # Each group's scale is searched for the least sum of |error|**2.4 (gptq's own exponent): symmetric levels
            # end half a step short of a group's largest weight, and without the search that costs more than
            # calibration gains (docs/benchmarks.md).
            "mse": 2.4,
            "scale_search_steps": 10,
        }
        return Variant(
            format=self.format,
            name=name,
            branch="main" if default else name,
            parameters=parameters,
            nominal_bits=packed_bits(bits, group_size),
        )

    def check_name(self, name: str) -> None:
        if not (_NAME.fullmatch(name) or _AUTO.fullmatch(name)):
            raise BadInput(f"unknown GPTQ variant {name!r}: did you mean {_nearest(name)!r}?")

    def quantize(self, job: Job) -> Output:
        from quantizers.gptqmodel_backend import quantize_gptq

        return quantize_gptq(job)


def _nearest(name: str) -> str:
    known = [
        *(f"gptq-{bits}bit-auto" for bits in (3, 4, 8)),
        *(
            f"gptq-{bits}bit-{group}g-actorder_{order}"
            for bits in (3, 4, 8)
            for group in (*GROUP_SIZES, WHOLE_ROW)
            for order in (True, False)
        ),
    ]
    begun = [candidate for candidate in known if candidate.startswith(name)]
    return (begun or get_close_matches(name, known, n=1, cutoff=0.0))[0]
