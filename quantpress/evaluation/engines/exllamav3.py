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

    Raises :class:`Refused` if the job is for a CPU or ExLlamaV3 is not built. Otherwise raises the same errors as the
    transformers engine.
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
        # "flash_attn_nc" is ExLlamaV3's name for attention without a cache. Other kernels can also compute this.
        logits = model.forward(ids, {"attn_mode": "flash_attn_nc", "last_tokens_only": kept})
        # The output head has columns beyond the vocabulary, because ExLlamaV3 pads the head to a multiple of 128.
        return logits[..., : config.vocab_size]

    return ExLlamaModel(forward)
