"""Runs one evaluation in a child process: ``python -m quantpress.evaluation.job JOB.json RESULT.json``."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Literal

from quantpress.files import write_text
from quantpress.machine.child import explained_exit
from quantpress.record.base import Record
from quantpress.record.measurement import Engine, Evaluation, Protocol

#: Maps an engine to its module. Each module has ``evaluate(job: EvaluationJob) -> Evaluation``.
_ENGINES = {
    "transformers": "quantpress.evaluation.engines.transformers",
    "llama.cpp": "quantpress.evaluation.engines.llama_cpp",
    "exllamav3": "quantpress.evaluation.engines.exllamav3",
    "exllamav2": "quantpress.evaluation.engines.exllamav2",
}


class EvaluationJob(Record):
    """What to measure.

    ``model`` is a checkpoint folder, or a GGUF file for llama.cpp. A job gives ``save_logits`` or ``base_logits`` or
    neither. If ``save_logits`` is given, the model's log-probabilities are written there, in llama-perplexity's
    ``_logits_`` file format. If ``base_logits`` is given, the model's divergence from this base is measured. The
    base is a file of the unquantized model's log-probabilities for the same tokens, in the same format.
    """

    engine: Engine
    model: Path
    protocol: Protocol
    text: Path
    save_logits: Path | None = None
    base_logits: Path | None = None
    threads: int
    device: Literal["cpu", "cuda"]

    @property
    def writes(self) -> list[Path]:
        """The folders in which the job writes."""
        return [] if self.save_logits is None else [self.save_logits.parent]


def main(job_file: Path, result_file: Path) -> None:
    job = EvaluationJob.model_validate_json(job_file.read_bytes())
    evaluation: Evaluation = import_module(_ENGINES[job.engine]).evaluate(job)
    write_text(result_file, evaluation.model_dump_json(indent=1))


if __name__ == "__main__":
    with explained_exit():
        main(Path(sys.argv[1]), Path(sys.argv[2]))
