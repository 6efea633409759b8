"""Measures an EXL2 checkpoint with ExLlamaV2's own forward pass, on CUDA."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from quantpress.evaluation.engines.exllama import ExLlamaModel, measured, require_cuda
from quantpress.evaluation.job import EvaluationJob
from quantpress.record.measurement import Evaluation
from quantpress.toolchain.exllama import EXLLAMAV2, activate


def evaluate(job: EvaluationJob) -> Evaluation:
    """Measures ``job.model`` as ``job.protocol`` says.

    Raises :class:`Refused` if the job is for a CPU or ExLlamaV2 is not built. Otherwise raises the same errors as the
    transformers engine.
    """
    require_cuda(job.device)
    return measured(job, load(job.model), "exllamav2", f"{EXLLAMAV2.wheel.version}, torch {version('torch')}")


def load(folder: Path) -> ExLlamaModel:
    """Loads the checkpoint on the first GPU."""
    activate(EXLLAMAV2)
    import torch
    from exllamav2 import ExLlamaV2, ExLlamaV2Config

    model = ExLlamaV2(ExLlamaV2Config(str(folder)))
    model.load()

    def forward(ids: Any, kept: int) -> Any:
        # Each sequence runs alone, because ExLlamaV2 makes its buffers for one sequence at a time.
        rows = [model.forward(row[None])[:, -kept:, : model.config.vocab_size].clone() for row in ids]
        return torch.cat(rows)

    return ExLlamaModel(forward)
