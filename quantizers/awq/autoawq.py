"""The ``awq`` format, made by AutoAWQ. AutoAWQ was the first library to write checkpoints in this format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from quantizers.archived import ArchivedLibrary, make_checkpoint
from quantizers.awq import AWQ
from quantizers.checkpoint.widths import check_divisible
from quantizers.gptqmodel.format import check_known
from quantizers.protocol import Job, Output, Parameters
from quantpress.toolchain import archived_libraries

#: The architectures that AutoAWQ knows: the keys of ``AWQ_CAUSAL_LM_MODEL_MAP`` in awq/models/auto.py (version 0.2.9),
#: in lower case.
_KNOWN = frozenset({
    "mpt", "llama", "opt", "refinedweb", "refinedwebmodel", "exaone", "falcon", "bloom", "gptj", "gpt_bigcode",
    "mistral", "mixtral", "gpt_neox", "aquila", "yi", "qwen", "baichuan", "llava", "qwen2", "qwen3", "qwen3_moe",
    "gemma", "gemma2", "stablelm", "starcoder2", "llava_next", "phi3", "phi3_v", "cohere", "deepseek_v2",
    "deepseek_v3", "minicpm", "internlm2", "minicpm3", "qwen2_vl", "qwen2_5_vl", "qwen2_5_omni",
})  # fmt: skip
#: AutoAWQ's clipping search takes this number of rows at a time (awq/quantize/quantizer.py, ``oc_batch_size``).
_ROWS = 64
#: The edition of our fix of AutoAWQ's search. Raise this number when autoawq_backend.py gives other bytes for equal
#: parameters than before.
_EDITION = 1
#: The program that runs in the archived libraries' environment.
_PROGRAM = Path(__file__).with_name("autoawq_backend.py")


class AutoAWQ(ArchivedLibrary, AWQ):
    """Implements :class:`quantizers.protocol.Quantizer`."""

    library = "autoawq"
    traits = replace(AWQ.traits, toolchain=archived_libraries.NAME)

    def version(self) -> str:
        return f"{super().version()}, quantpress mend {_EDITION}"

    def parameters(self, group_size: int) -> Parameters:
        return {"backend": "autoawq", "bits": 4, "group_size": group_size, "zero_point": True, "version": "gemm"}

    def check_architecture(self, config: Parameters) -> None:
        check_known(config, _KNOWN, "AutoAWQ")
        check_divisible(config, _ROWS, "searched by AutoAWQ in runs of 64 rows")

    def quantize(self, job: Job) -> Output:
        return make_checkpoint(job, _PROGRAM)
