"""The child process of an evaluation: ``python -m quantpress.evaluation.job JOB.json RESULT.json``."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Literal

from quantpress.files import write_text
from quantpress.machine.child import explained_exit
from quantpress.record.base import Record
from quantpress.record.measurement import Engine, Evaluation, Protocol

#: Engine to module. Each module has ``evaluate(job: EvaluationJob) -> Evaluation``.
_ENGINES = {
    "transformers": "quantpress.evaluation.engines.transformers",
    "llama.cpp": "quantpress.evaluation.engines.llama_cpp",
    "exllamav3": "quantpress.evaluation.engines.exllamav3",
    "exllamav2": "quantpress.evaluation.engines.exllamav2",
}


class EvaluationJob(Record):
    """What to measure.

    ``model`` is a checkpoint folder, or a GGUF file (llama.cpp). At most one of these two is given: ``save_logits`` is
    where the log-probabilities are written, in llama-perplexity's ``_logits_`` file format; ``base_logits`` is such a
    file of the unquantized model and of the same tokens, and the divergence from it is measured.
    """

    engine: Engine
    model: Path
    protocol: Protocol
    text: Path
    save_logits: Path | None = None
    base_logits: Path | None = None
    threads: int
    device: Literal["cpu", "cuda"]


def main(job_file: Path, result_file: Path) -> None:
    job = EvaluationJob.model_validate_json(job_file.read_bytes())
    evaluation: Evaluation = import_module(_ENGINES[job.engine]).evaluate(job)
    write_text(result_file, evaluation.model_dump_json(indent=1))


if __name__ == "__main__":
    with explained_exit():
        main(Path(sys.argv[1]), Path(sys.argv[2]))
