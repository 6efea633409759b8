"""The ``gptq`` format, made by AutoGPTQ. AutoGPTQ was the first library to write checkpoints in this format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from quantizers.archived import ArchivedLibrary, make_checkpoint
from quantizers.gptq import GPTQ
from quantizers.gptqmodel.format import check_known
from quantizers.protocol import Job, Output, Parameters
from quantpress.errors import Refused
from quantpress.toolchain import archived_libraries

#: The architectures that AutoGPTQ knows: ``SUPPORTED_MODELS`` of auto_gptq/modeling/_const.py (version 0.7.1), in lower
#: case.
_KNOWN = frozenset({
    "bloom", "gptj", "gpt2", "gpt_neox", "opt", "moss", "gpt_bigcode", "codegen", "refinedwebmodel", "refinedweb",
    "baichuan", "internlm", "qwen", "xverse", "deci", "stablelm_epoch", "llama", "longllama", "falcon", "mistral",
    "yi", "mixtral", "qwen2", "gemma",
})  # fmt: skip
#: The program that runs in the archived libraries' environment.
_PROGRAM = Path(__file__).with_name("autogptq_backend.py")


class AutoGPTQ(ArchivedLibrary, GPTQ):
    """Implements :class:`quantizers.protocol.Quantizer`. Quantizes on CUDA only."""

    library = "auto-gptq"
    traits = replace(GPTQ.traits, toolchain=archived_libraries.NAME)
    needs_cuda = True

    def parameters(self, bits: int, group_size: int, activation_order: bool) -> Parameters:
        return {
            "backend": "auto-gptq",
            "bits": bits,
            "group_size": group_size,
            "desc_act": activation_order,
            "sym": True,
            "true_sequential": True,
            # TheBloke's value. His cards say: "0.01 is default, but 0.1 results in slightly better accuracy".
            "damp_percent": 0.1,
        }

    def check_architecture(self, config: Parameters) -> None:
        check_known(config, _KNOWN, "AutoGPTQ")

    def quantize(self, job: Job) -> Output:
        if job.device != "cuda":
            raise Refused("AutoGPTQ quantizes on CUDA only: take the backend gptqmodel, or a CUDA runner")
        return make_checkpoint(job, _PROGRAM)
