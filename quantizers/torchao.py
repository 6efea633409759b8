"""The ``torchao`` format: PyTorch's own quantization, saved as safetensors by transformers.

There is no calibration: weights are rounded within rows or groups. ``int8wo``, ``int8dq`` and ``intx4wo`` can be made
and run on any device. ``int4wo`` can be made only on CUDA, because its weights are packed for CUDA's tinygemm kernels.
``float8wo`` and ``float8dq`` are useful only on a GPU with float8 units (compute capability 8.9 or higher).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quantizers.checkpoint.files import describe, source_config, stored_dtype
from quantizers.checkpoint.format import CheckpointFormat, refuse_experts
from quantizers.checkpoint.widths import GROUP_SIZES, check_group_size, largest_group_size
from quantizers.protocol import Job, Output, Parameters, Variant
from quantizers.traits import Traits
from quantpress.source.language_models import require_plain_language_model
from quantpress.source.safetensors import Storage

#: The endings of the names of scales and zero points in torchao's safetensors (torchao.prototype.safetensors).
_BESIDE = ("._weight_scale", "._weight_zero_point", "._weight_scale_and_zero")
_WEIGHTS = ("._weight_qdata",)
_SCALE_BITS = 16


@dataclass(frozen=True)
class _Scheme:
    """How to make a kind of variant with torchao.

    ``config`` is the name of torchao's config class, and ``arguments`` are its arguments as JSON values. ``stored`` and
    ``stored_bits`` are the type and the number of bits of a stored weight. ``grouped`` says whether the scheme has a
    group size. ``dtype`` is the type of unquantized tensors, or None for the source's type.
    """

    config: str
    stored: str
    stored_bits: int
    arguments: tuple[tuple[str, str | int], ...] = ()
    grouped: bool = False
    dtype: str | None = None

    @property
    def storage(self) -> Storage:
        return Storage(_WEIGHTS, self.stored, self.stored_bits, _BESIDE)


_SCHEMES = {
    # The int8 schemes first multiply by the plain int8 values and then apply the scale (torchao's int8_tensor.py). The
    # unscaled products are too large for float16: on an H100, SmolLM2 in float16 gave NaN (docs/benchmarks.md). They
    # fit bfloat16, so these schemes use bfloat16.
    "int8wo": _Scheme("Int8WeightOnlyConfig", "int8", 8, (("granularity", "row"),), dtype="bfloat16"),
    # Inputs get a zero point, because this lowers the perplexity. SmolLM2-135M has 10.05 with a zero point, 10.26 with
    # torchao's default (symmetric inputs), and 9.90 unquantized (10 windows of 512 tokens of the offline text).
    "int8dq": _Scheme(
        "Int8DynamicActivationInt8WeightConfig",
        "int8",
        8,
        (("granularity", "row"), ("act_mapping_type", "ASYMMETRIC")),
        dtype="bfloat16",
    ),
    # IntxWeightOnlyConfig stores each 4-bit value in a whole byte.
    "intx4wo": _Scheme(
        "IntxWeightOnlyConfig",
        "int4 in int8",
        8,
        (("weight_dtype", "int4"), ("mapping_type", "ASYMMETRIC"), ("choose_qparams", "AFFINE")),
        grouped=True,
    ),
    # torchao has two ways to choose the scales for tinygemm's packing. HQQ is the better way, says torchao's docstring
    # of the enum. The tinygemm kernels support only bfloat16.
    "int4wo": _Scheme(
        "Int4WeightOnlyConfig",
        "int4",
        4,
        (("packing_format", "TILE_PACKED_TO_4D"), ("choose_qparams", "HQQ")),
        grouped=True,
        dtype="bfloat16",
    ),
    # If scales are per row, torchao supports only bfloat16.
    "float8wo": _Scheme("Float8WeightOnlyConfig", "float8_e4m3", 8, (("granularity", "row"),), dtype="bfloat16"),
    "float8dq": _Scheme(
        "Float8DynamicActivationFloat8WeightConfig", "float8_e4m3", 8, (("granularity", "row"),), dtype="bfloat16"
    ),
}
_NEEDS_CUDA = ("int4wo", "float8wo", "float8dq")
#: The lowest compute capability with which torchao makes float8 (quantization/quant_api.py, ``is_sm_at_least_89``).
_FLOAT8_CAPABILITY = 8.9
_DEFAULT = "int8wo"


class TorchAO(CheckpointFormat):
    """Implements :class:`quantizers.protocol.Quantizer`."""

    format = "torchao"
    suffix = "TorchAO"
    traits = Traits(core_seconds_per_weight=4.4e-7)
    packages = ("torchao", "torch", "transformers")
    extra = "torchao"

    def known_names(self) -> list[str]:
        return [name for kind, scheme in _SCHEMES.items() for name in _names(kind, scheme)]

    def ladders(self) -> dict[str, list[str]]:
        return {
            "default": [_DEFAULT],
            "cpu": ["int8wo", "int8dq", "intx4wo-auto"],
            "all": [f"{kind}-auto" if scheme.grouped else kind for kind, scheme in _SCHEMES.items()],
        }

    def default_variants(self, config: Parameters) -> list[str]:
        return [_DEFAULT]

    def variant(self, name: str, config: Parameters) -> Variant:
        self.check_name(name)
        refuse_experts(config, "TorchAO")
        require_plain_language_model(config, "TorchAO")
        kind, _, group = name.partition("-")
        scheme = _SCHEMES[kind]
        parameters: Parameters = {"config": scheme.config, **dict(scheme.arguments)}
        nominal_bits = float(scheme.stored_bits)
        if scheme.dtype:
            parameters["dtype"] = scheme.dtype
        if scheme.grouped:
            size = largest_group_size(config) if group == "auto" else int(group.removesuffix("g"))
            check_group_size(config, size)
            name = f"{kind}-{size}g"
            parameters["group_size"] = size
            nominal_bits += 2 * _SCALE_BITS / size
        return Variant(
            format=self.format,
            name=name,
            branch="main" if name == _DEFAULT else name,
            parameters=parameters,
            nominal_bits=nominal_bits,
            needs_cuda=kind in _NEEDS_CUDA,
            compute_capability=_FLOAT8_CAPABILITY if kind.startswith("float8") else None,
        )

    def quantize(self, job: Job) -> Output:
        from transformers import TorchAoConfig

        from quantizers.checkpoint.transformers_backend import quantize_while_loading

        scheme = _SCHEMES[job.variant.name.partition("-")[0]]
        dtype = scheme.dtype or stored_dtype(source_config(job))
        quantize_while_loading(job, TorchAoConfig(_torchao_config(job.variant.parameters)), dtype)
        return describe(job, scheme.storage, {"calibration_tokens": 0})


def _names(kind: str, scheme: _Scheme) -> list[str]:
    return [f"{kind}-auto", *(f"{kind}-{size}g" for size in GROUP_SIZES)] if scheme.grouped else [kind]


def _torchao_config(parameters: Parameters) -> Any:
    """Returns the torchao config object that a variant's parameters describe."""
    import torch
    from torchao import quantization
    from torchao.quantization.quantize_.workflows import IntxChooseQParamsAlgorithm

    # The parameters can come from a manifest, so they never choose freely what is called.
    name = next(scheme.config for scheme in _SCHEMES.values() if scheme.config == parameters["config"])
    config = getattr(quantization, name)
    if name == "IntxWeightOnlyConfig":
        return config(
            weight_dtype={"int4": torch.int4}[parameters["weight_dtype"]],  # type: ignore[attr-defined]
            granularity=quantization.PerGroup(parameters["group_size"]),
            mapping_type=quantization.MappingType[parameters["mapping_type"]],
            intx_choose_qparams_algorithm=IntxChooseQParamsAlgorithm[parameters["choose_qparams"]],
        )
    if name == "Int4WeightOnlyConfig":
        return config(
            group_size=parameters["group_size"],
            int4_packing_format=parameters["packing_format"].lower(),
            int4_choose_qparams_algorithm=parameters["choose_qparams"].lower(),
        )
    mapping = parameters.get("act_mapping_type")
    inputs = {"act_mapping_type": quantization.MappingType[mapping]} if mapping else {}
    return config(granularity=quantization.PerRow(), **inputs)
