"""Makes several checkpoints in one child process: ``python -m tests.support.quantize_in_turn JOBS.json MADE.json``.

The press gives each checkpoint a child of its own. Importing torch, transformers and a quantization library takes
longer than quantizing a tiny model, so tests that make many checkpoints pay for it once.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from quantizers import quantizer_of
from quantizers.protocol import Job, Output
from quantpress.files import write_text
from quantpress.record.base import Record


class Jobs(Record):
    """``quantize`` jobs, in the order in which they are done."""

    jobs: list[Job]


class Made(Record):
    """By the variant's name: what a job made, or the stack trace of its failure. A failure does not end the others."""

    outputs: dict[str, Output]
    failures: dict[str, str]


def main(jobs_file: Path, made_file: Path) -> None:
    made = Made(outputs={}, failures={})
    for job in Jobs.model_validate_json(jobs_file.read_bytes()).jobs:
        job.out.mkdir(parents=True)
        try:
            made.outputs[job.variant.name] = quantizer_of(job.variant).quantize(job)
        except Exception:
            made.failures[job.variant.name] = traceback.format_exc()
    write_text(made_file, made.model_dump_json(indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
