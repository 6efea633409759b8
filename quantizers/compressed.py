"""The ``compressed-tensors`` format, made by llm-compressor. vLLM serves this format fastest.

Variants have the names of compressed-tensors' schemes, as in the repositories of Red Hat and Neural Magic. A name gives
the bits of the weights (W) and the bits of the linears' inputs (A). ``W4A16`` alone means the variant with the
largest group size that divides the model's widths.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from quantizers.checkpoint.files import describe, make_plain, source_config, stored_dtype
from quantizers.checkpoint.format import CheckpointFormat, refuse_experts
from quantizers.checkpoint.widths import GROUP_SIZES, check_group_size, largest_group_size
from quantizers.protocol import Job, Output, Parameters, Variant
from quantizers.traits import Traits
from quantpress.evaluation.engines.strict import strict_loading
from quantpress.source.language_models import require_plain_language_model
from quantpress.source.safetensors import Storage

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

_W4A16 = "W4A16"
_W8A8 = "W8A8"
_FP8 = "FP8-Dynamic"
#: GPTQ's damping, as a fraction of the mean diagonal of the Hessian. 1 % is llm-compressor's default and the paper's
#: value (Frantar et al., arXiv:2210.17323, section 4).
_DAMPENING = 0.01
#: SmoothQuant's strength: how much of the range of the linears' inputs moves to the weights. Red Hat's W8A8 recipes
#: have this value.
_SMOOTHING = 0.8
_BESIDE = (".weight_scale", ".weight_shape", ".weight_zero_point", ".weight_g_idx")
_STORAGE = {
    _W4A16: Storage((".weight_packed",), "int4", 4, _BESIDE),
    _W8A8: Storage((".weight",), "int8", 8, _BESIDE),
    _FP8: Storage((".weight",), "float8_e4m3", 8, _BESIDE),
}


class CompressedTensors(CheckpointFormat):
    """Implements :class:`quantizers.protocol.Quantizer`."""

    format = "compressed-tensors"
    suffix = "compressed-tensors"
    traits = Traits(core_seconds_per_weight=4.5e-6)
    packages = ("llmcompressor", "compressed-tensors", "torch", "transformers")
    extra = "compressed-tensors"

    def known_names(self) -> list[str]:
        return [_W4A16, *(f"{_W4A16}-G{size}" for size in GROUP_SIZES), _W8A8, _FP8]

    def ladders(self) -> dict[str, list[str]]:
        return {"default": [_W4A16], "all": [_W4A16, _W8A8, _FP8]}

    def default_variants(self, config: Parameters) -> list[str]:
        return [self.variant(_W4A16, config).name]

    def variant(self, name: str, config: Parameters) -> Variant:
        self.check_name(name)
        refuse_experts(config, "quantpress with llm-compressor")
        require_plain_language_model(config, "quantpress with llm-compressor")
        branch, nominal_bits = name, 8.0
        if name == _W8A8:
            parameters: Parameters = {
                "scheme": "W8A8",
                "smoothing_strength": _SMOOTHING,
                "algorithm": "SmoothQuant, GPTQ",
                "damp_percent": _DAMPENING,
            }
        elif name == _FP8:
            # With three mantissa bits, GPTQ loses less than half as much as plain rounding: on SmolLM2-135M the
            # perplexity is 1.1 % above the unquantized model's instead of 2.6 % (docs/benchmarks.md).
            parameters = {"scheme": "FP8_DYNAMIC", "algorithm": "GPTQ", "damp_percent": _DAMPENING}
        else:
            largest = largest_group_size(config)
            size = largest if name == _W4A16 else int(name.rpartition("-G")[2])
            check_group_size(config, size)
            name = f"{_W4A16}-G{size}"
            branch, nominal_bits = "main" if size == largest else name, 4 + 16 / size
            parameters = {
                "scheme": "W4A16",
                "group_size": size,
                "algorithm": "GPTQ",
                "damp_percent": _DAMPENING,
                "act_order": "static",
                # This observer searches for the range of each group that gives the least error. The search pays off
                # because symmetric levels end half a step below the largest weight. The gptq format searches for the
                # same reason (docs/benchmarks.md).
                "observer": "memoryless_mse",
            }
        return Variant(format=self.format, name=name, branch=branch, parameters=parameters, nominal_bits=nominal_bits)

    def quantize(self, job: Job) -> Output:
        import torch
        from llmcompressor import oneshot
        from transformers import AutoModelForCausalLM

        if job.device == "cpu":
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # llm-compressor takes any GPU that it sees
        torch.set_num_threads(job.threads)
        dtype = stored_dtype(source_config(job))
        with strict_loading():
            model = AutoModelForCausalLM.from_pretrained(
                str(job.source),
                dtype=getattr(torch, dtype),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
            )
        oneshot(model=model, recipe=_recipe(job.variant.parameters), dataset=_windows(job))
        model.save_pretrained(str(job.out), **({"max_shard_size": job.split_above} if job.split_above else {}))
        # llm-compressor's recipe file names Python types. The file is not needed: the manifest has the parameters.
        (job.out / "recipe.yaml").unlink(missing_ok=True)
        make_plain(job, dtype)
        tokens = job.calibration.samples * job.calibration.length
        return describe(job, _STORAGE[job.variant.name.partition("-G")[0]], {"calibration_tokens": tokens})


def _recipe(parameters: Parameters) -> list[Any]:
    """Returns llm-compressor's modifiers, in the order in which llm-compressor applies them."""
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    scheme, ignore, damping = parameters["scheme"], ["lm_head"], parameters["damp_percent"]
    if scheme == "FP8_DYNAMIC":
        return [GPTQModifier(targets="Linear", scheme=scheme, ignore=ignore, dampening_frac=damping)]
    if scheme == "W8A8":
        return [
            SmoothQuantModifier(smoothing_strength=parameters["smoothing_strength"]),
            GPTQModifier(targets="Linear", scheme=scheme, ignore=ignore, dampening_frac=damping),
        ]
    weights = QuantizationArgs(
        num_bits=4,
        type="int",
        symmetric=True,
        strategy="group",
        group_size=parameters["group_size"],
        actorder=parameters["act_order"],
        observer=parameters["observer"],
    )
    groups = {"group_0": QuantizationScheme(targets=["Linear"], weights=weights)}
    return [GPTQModifier(config_groups=groups, ignore=ignore, dampening_frac=damping)]


def _windows(job: Job) -> DataLoader[Any]:
    """Returns a loader of the calibration windows, in the order of the text. llm-compressor does not shuffle or cut the
    windows of a loader."""
    import torch
    from torch.utils.data import DataLoader

    from quantizers.checkpoint.calibration import calibration_windows

    samples = [
        {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        for ids in calibration_windows(job.source, job.calibration)
    ]
    return DataLoader(samples, batch_size=None)  # type: ignore[arg-type]  # torch accepts a list as a data set
