"""The ``reference`` format: absmax, zero-point and LLM.int8() as their papers write them, in plain PyTorch.

The format is for study, and every other format should give better figures than this one. The mathematics is in
:mod:`quantizers.reference_math`. The published checkpoint holds the weights after the round trip to int8 and back, in
the source's 16-bit type (float16 for a float32 source). So the checkpoint is as large as the unquantized model in 16
bits, and transformers loads the checkpoint without other packages. Integers with separate scales would need our own
code to load. Every figure on the card was measured on exactly the published files.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from quantizers.checkpoint.files import describe, make_plain, source_config, stored_dtype
from quantizers.checkpoint.format import CheckpointFormat, refuse_experts
from quantizers.protocol import Job, Output, Parameters, Variant
from quantizers.traits import Traits
from quantpress.source.language_models import require_plain_language_model
from quantpress.source.weight_files import weight_paths, weights_in

if TYPE_CHECKING:
    from torch import Tensor

#: Maps a variant to its parameters. ``method`` is the function of reference_math. ``granularity`` says which weights
#: share a scale.
_PARAMETERS: dict[str, Parameters] = {
    "absmax-int8": {"bits": 8, "method": "absmax", "granularity": "tensor"},
    "zeropoint-int8": {"bits": 8, "method": "zeropoint", "granularity": "tensor"},
    "absmax-int8-channel": {"bits": 8, "method": "absmax", "granularity": "channel"},
    "zeropoint-int8-channel": {"bits": 8, "method": "zeropoint", "granularity": "channel"},
    # The threshold of LLM.int8(), arXiv:2208.07339, section 3.2.
    "llm-int8": {"bits": 8, "method": "absmax", "granularity": "channel", "outlier_threshold": 6.0},
}
_DEFAULT = "absmax-int8-channel"
#: This number is part of the recipe. Raise the number when equal parameters give other bytes than before.
_EDITION = 1


class Reference(CheckpointFormat):
    """Implements :class:`quantizers.protocol.Quantizer`."""

    format = "reference"
    suffix = "reference"
    traits = Traits(core_seconds_per_weight=4.4e-7)
    packages = ("torch", "transformers")
    extra = "torch"

    def known_names(self) -> list[str]:
        return list(_PARAMETERS)

    def ladders(self) -> dict[str, list[str]]:
        return {"default": list(_PARAMETERS), "all": list(_PARAMETERS)}

    def default_variants(self, config: Parameters) -> list[str]:
        return list(_PARAMETERS)

    def variant(self, name: str, config: Parameters) -> Variant:
        self.check_name(name)
        refuse_experts(config, "the reference format")
        require_plain_language_model(config, "the reference format")
        branch = "main" if name == _DEFAULT else name
        return Variant(format=self.format, name=name, branch=branch, parameters=_PARAMETERS[name], nominal_bits=16.0)

    def version(self) -> str:
        super().version()  # refuses if PyTorch is missing; PyTorch's version makes no difference
        return f"quantpress reference {_EDITION}"

    def quantize(self, job: Job) -> Output:
        import torch
        from safetensors.torch import load_file, save_file

        torch.set_num_threads(job.threads)
        parameters = job.variant.parameters
        dtype = stored_dtype(source_config(job))
        threshold = parameters.get("outlier_threshold")
        largest_inputs = _largest_inputs(job) if threshold else {}
        linears, rounded, kept = _linear_names(job), 0, 0
        for file in weight_paths(job.source):
            tensors = load_file(file)
            for name, tensor in tensors.items():
                if name in linears:
                    outliers = largest_inputs[name] >= threshold if threshold else None
                    tensors[name] = _round_trip(tensor, parameters, outliers)
                    kept += int(outliers.sum()) * tensor.shape[0] if outliers is not None else 0
                    rounded += tensor.numel()
                if tensor.is_floating_point():
                    tensors[name] = tensors[name].to(getattr(torch, dtype))
            save_file(tensors, job.out / file.name, metadata={"format": "pt"})
            (job.out / file.name).chmod(0o644)
        index = found.index if (found := weights_in(job.source)) else None
        for name in ["config.json", *([index] if index else [])]:
            shutil.copyfile(job.source / name, job.out / name)
        make_plain(job, dtype)
        tokens = job.calibration.samples * job.calibration.length if threshold else 0
        output = describe(job, None, {"calibration_tokens": tokens, "outlier_weights": kept})
        return output.model_copy(update={"details": output.details | {"quantized_weights": rounded - kept}})


def _round_trip(weight: Tensor, parameters: Parameters, outliers: Tensor | None) -> Tensor:
    """Rounds ``weight`` (shape ``[out, in]``) to int8 and back to float32. If ``outliers`` (bool ``[in]``) marks a
    column, the column is not rounded."""
    from quantizers.reference_math import absmax, decomposed_weight, zeropoint

    exact = weight.float()
    if outliers is not None:
        return decomposed_weight(exact, outliers)
    method = {"absmax": absmax, "zeropoint": zeropoint}[parameters["method"]]
    return method(exact, per_channel=parameters["granularity"] == "channel").dequantize()


def _linear_names(job: Job) -> set[str]:
    """Returns the names of the weights of all linears except the output head. Reads only config.json."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        config = AutoConfig.from_pretrained(str(job.source), local_files_only=True, trust_remote_code=False)
        return set(_linears(AutoModelForCausalLM.from_config(config, trust_remote_code=False)))


def _linears(model: Any) -> dict[str, Any]:
    """Returns a dict from the name of a weight to its linear, for all linears of a causal language model except the
    output head."""
    import torch

    head = model.get_output_embeddings()
    return {
        f"{name}.weight": module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }


def _largest_inputs(job: Job) -> dict[str, Tensor]:
    """Returns a dict from the name of a linear's weight to the largest magnitudes of the linear's inputs over all
    calibration windows (float32 ``[in]``)."""
    import torch

    from quantizers.checkpoint.calibration import calibration_windows
    from quantpress.evaluation.engines.transformers import load_model

    model = load_model(job.source, job.device, job.threads)
    largest: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def hook(_: Any, inputs: tuple[Tensor, ...]) -> None:
            seen = inputs[0].detach().float().abs().flatten(0, -2).amax(0).cpu()
            largest[name] = torch.maximum(largest[name], seen) if name in largest else seen

        return hook

    for name, linear in _linears(model).items():
        linear.register_forward_pre_hook(watch(name))
    with torch.inference_mode():
        for window in calibration_windows(job.source, job.calibration):
            model(torch.tensor([window], device=model.device), use_cache=False)
    return largest
