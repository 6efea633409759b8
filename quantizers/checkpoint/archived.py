"""``gptq`` by AutoGPTQ and ``awq`` by AutoAWQ: the same checkpoints by the libraries that first wrote them.

Both are archived and run in an environment of their own (:mod:`quantpress.toolchain.archived_libraries`), as a
program that imports nothing of this package: it reads a JSON job and leaves a checkpoint folder. Tokens to calibrate on
are chosen here, so that all backends see the same.
"""

from __future__ import annotations

import json
from pathlib import Path

from quantizers.awq import AWQ
from quantizers.checkpoint.widths import check_divisible
from quantizers.gptq import GPTQ
from quantizers.gptqmodel.format import check_known
from quantizers.protocol import Job, Output, Parameters
from quantpress.errors import Refused
from quantpress.files import write_text
from quantpress.toolchain import archived_libraries

#: ``SUPPORTED_MODELS`` of auto_gptq/modeling/_const.py, version 0.7.1, in lower case.
_AUTO_GPTQ_KNOWS = frozenset({
    "bloom", "gptj", "gpt2", "gpt_neox", "opt", "moss", "gpt_bigcode", "codegen", "refinedwebmodel", "refinedweb",
    "baichuan", "internlm", "qwen", "xverse", "deci", "stablelm_epoch", "llama", "longllama", "falcon", "mistral",
    "yi", "mixtral", "qwen2", "gemma",
})  # fmt: skip
#: ``AWQ_CAUSAL_LM_MODEL_MAP`` of awq/models/auto.py, version 0.2.9, in lower case.
_AUTOAWQ_KNOWS = frozenset({
    "mpt", "llama", "opt", "refinedweb", "refinedwebmodel", "exaone", "falcon", "bloom", "gptj", "gpt_bigcode",
    "mistral", "mixtral", "gpt_neox", "aquila", "yi", "qwen", "baichuan", "llava", "qwen2", "qwen3", "qwen3_moe",
    "gemma", "gemma2", "stablelm", "starcoder2", "llava_next", "phi3", "phi3_v", "cohere", "deepseek_v2",
    "deepseek_v3", "minicpm", "internlm2", "minicpm3", "qwen2_vl", "qwen2_5_vl", "qwen2_5_omni",
})  # fmt: skip
#: Rows that AutoAWQ's clipping search takes at a time (awq/quantize/quantizer.py, ``oc_batch_size``).
_AUTOAWQ_ROWS = 64
#: Raised when the bytes change that autoawq_backend.py, which mends AutoAWQ's search, gives for equal parameters.
_AUTOAWQ_EDITION = 1


class _ArchivedLibrary:
    """What both say of the library that makes them; refused where its environment is not installed."""

    library: str

    def version(self) -> str:
        archived_libraries.require()
        return f"{self.library} {archived_libraries.pins()[self.library]}"

    def tools(self) -> dict[str, str]:
        return {self.library: archived_libraries.pins()[self.library]}


class AutoGPTQ(_ArchivedLibrary, GPTQ):
    """Implements :class:`quantizers.protocol.Quantizer`. Quantizes on CUDA alone."""

    library = "auto-gptq"
    needs_cuda = True

    def parameters(self, bits: int, group_size: int, activation_order: bool) -> Parameters:
        return {
            "backend": "auto-gptq",
            "bits": bits,
            "group_size": group_size,
            "desc_act": activation_order,
            "sym": True,
            "true_sequential": True,
            # TheBloke's, of whose cards: "0.01 is default, but 0.1 results in slightly better accuracy".
            "damp_percent": 0.1,
        }

    def check_architecture(self, config: Parameters) -> None:
        check_known(config, _AUTO_GPTQ_KNOWS, "AutoGPTQ")

    def quantize(self, job: Job) -> Output:
        if job.device != "cuda":
            raise Refused("AutoGPTQ quantizes on CUDA only: take the backend gptqmodel, or a CUDA runner")
        return _make_checkpoint(job, "autogptq_backend.py")


class AutoAWQ(_ArchivedLibrary, AWQ):
    """Implements :class:`quantizers.protocol.Quantizer`."""

    library = "autoawq"

    def version(self) -> str:
        return f"{super().version()}, quantpress mend {_AUTOAWQ_EDITION}"

    def parameters(self, group_size: int) -> Parameters:
        return {"backend": "autoawq", "bits": 4, "group_size": group_size, "zero_point": True, "version": "gemm"}

    def check_architecture(self, config: Parameters) -> None:
        check_known(config, _AUTOAWQ_KNOWS, "AutoAWQ")
        check_divisible(config, _AUTOAWQ_ROWS, "searched by AutoAWQ in runs of 64 rows")

    def quantize(self, job: Job) -> Output:
        return _make_checkpoint(job, "autoawq_backend.py")


def _make_checkpoint(job: Job, program: str) -> Output:
    """Runs ``program``, a file beside this one, in the archived libraries' environment and describes what it made."""
    from quantizers.checkpoint.calibration import calibration_windows
    from quantizers.checkpoint.files import describe, make_plain, source_config, stored_dtype
    from quantizers.gptqmodel.backend import packed
    from quantpress.toolchain.run import run_tool

    windows = calibration_windows(job.source, job.calibration)
    dtype = stored_dtype(source_config(job))
    order = {
        "source": str(job.source),
        "out": str(job.out),
        "parameters": {key: value for key, value in job.variant.parameters.items() if key != "backend"},
        "windows": windows,
        "dtype": dtype,
        "device": job.device,
        "threads": job.threads,
    }
    order_file = job.out / "order.json"
    write_text(order_file, json.dumps(order))
    # Isolated (-I): neither PYTHONPATH nor the user's packages reach the other environment.
    run_tool([archived_libraries.require(), "-I", Path(__file__).with_name(program), order_file], job.out)
    order_file.unlink()
    make_plain(job, dtype)
    return describe(job, packed(job), {"calibration_tokens": sum(map(len, windows))})
