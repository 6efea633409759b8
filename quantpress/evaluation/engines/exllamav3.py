"""Measures an EXL3 checkpoint with ExLlamaV3's own forward pass, on CUDA."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from quantpress.evaluation.engines.exllama import ExLlamaModel, measured, require_cuda
from quantpress.evaluation.job import EvaluationJob
from quantpress.record.measurement import Evaluation
from quantpress.toolchain.exllama import EXLLAMAV3, activate


def evaluate(job: EvaluationJob) -> Evaluation:
    """Measures ``job.model`` as ``job.protocol`` says.

    Raises :class:`Refused` on a CPU or if ExLlamaV3 is not built; otherwise raises what the transformers engine does.
    """
    require_cuda(job.device)
    return measured(job, load(job.model), "exllamav3", f"{EXLLAMAV3.wheel.version}, torch {version('torch')}")


def load(folder: Path) -> ExLlamaModel:
    """Loads the checkpoint on the first GPU."""
    activate(EXLLAMAV3)
    from exllamav3 import Config, Model

    config = Config.from_directory(str(folder))
    model = Model.from_config(config)
    model.load(device="cuda:0")

    def forward(ids: Any, kept: int) -> Any:
        # "flash_attn_nc" is the package's name for attention without a cache. Other kernels may compute it.
        logits = model.forward(ids, {"attn_mode": "flash_attn_nc", "last_tokens_only": kept})
        # The head is padded to a multiple of 128 columns.
        return logits[..., : config.vocab_size]

    return ExLlamaModel(forward)
