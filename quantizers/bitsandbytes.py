"""The ``bitsandbytes`` format: LLM.int8() and NF4 (QLoRA). transformers quantizes the model while it loads the model,
and then saves the result.

There is no calibration. Weights are rounded to fixed levels, in rows (int8) or in blocks of 64 weights (nf4).
"""

from __future__ import annotations

from typing import Any

from quantizers.checkpoint.files import describe, source_config, stored_dtype
from quantizers.checkpoint.format import CheckpointFormat, refuse_experts
from quantizers.protocol import Job, Output, Parameters, Variant
from quantizers.traits import Traits
from quantpress.source.language_models import require_plain_language_model
from quantpress.source.safetensors import Storage

#: Maps a variant to its parameters, the default variant first. The parameters are those options of transformers'
#: BitsAndBytesConfig that change the files or the results.
_PARAMETERS: dict[str, Parameters] = {
    # 64 weights share a float32 scale. If bitsandbytes quantizes while loading, it has no other block size.
    "nf4": {"bits": 4, "quant_type": "nf4", "block_size": 64, "double_quant": False},
    # The scales are also quantized, to 8 bits in blocks of 256 scales (QLoRA, arXiv:2305.14314, section 3).
    "nf4-double": {"bits": 4, "quant_type": "nf4", "block_size": 64, "double_quant": True},
    # Inputs with a magnitude of at least 6 stay in 16 bits (LLM.int8(), arXiv:2208.07339, section 3.2).
    "int8": {"bits": 8, "outlier_threshold": 6.0},
}
#: Maps a variant to its bits per quantized weight, with the scales. In int8, a whole row shares one float32 scale. Its
#: size is negligible, so it is not counted.
_NOMINAL_BITS = {"nf4": 4 + 32 / 64, "nf4-double": 4 + 8 / 64 + 32 / (64 * 256), "int8": 8.0}
_STORAGE = {
    4: Storage(
        weights=(".weight",),
        type="nf4",
        bits=4,
        beside=(
            ".weight.absmax",
            ".weight.quant_map",
            ".weight.nested_absmax",
            ".weight.nested_quant_map",
            ".weight.quant_state.bitsandbytes__nf4",
        ),
    ),
    8: Storage(weights=(".weight",), type="int8", bits=8, beside=(".SCB", ".weight_format")),
}


class BitsAndBytes(CheckpointFormat):
    """Implements :class:`quantizers.protocol.Quantizer`."""

    format = "bitsandbytes"
    suffix = "BNB"
    traits = Traits(core_seconds_per_weight=4.4e-7)
    packages = ("bitsandbytes", "torch", "transformers")
    extra = "bitsandbytes"

    def known_names(self) -> list[str]:
        return list(_PARAMETERS)

    def ladders(self) -> dict[str, list[str]]:
        return {"default": ["nf4", "int8"], "all": list(_PARAMETERS)}

    def default_variants(self, config: Parameters) -> list[str]:
        return ["nf4", "int8"]

    def variant(self, name: str, config: Parameters) -> Variant:
        self.check_name(name)
        refuse_experts(config, "bitsandbytes")
        require_plain_language_model(config, "bitsandbytes")
        return Variant(
            format=self.format,
            name=name,
            branch="main" if name == "nf4" else name,
            parameters=_PARAMETERS[name],
            nominal_bits=_NOMINAL_BITS[name],
        )

    def quantize(self, job: Job) -> Output:
        from quantizers.checkpoint.transformers_backend import quantize_while_loading

        dtype = stored_dtype(source_config(job))
        quantize_while_loading(job, _bitsandbytes_config(job.variant.parameters, dtype), dtype)
        return describe(job, _STORAGE[job.variant.parameters["bits"]], {"calibration_tokens": 0})


def _bitsandbytes_config(parameters: Parameters, dtype: str) -> Any:
    from transformers import BitsAndBytesConfig

    if parameters["bits"] == 8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=parameters["outlier_threshold"])
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=parameters["quant_type"],
        bnb_4bit_use_double_quant=parameters["double_quant"],
        bnb_4bit_compute_dtype=dtype,
    )
