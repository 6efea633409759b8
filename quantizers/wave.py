"""Makes the variants of a wave in one child process: ``python -m quantizers.wave WAVE.json RESULT.json``.

A wave is a group of variants that are made together and lie on the disk together.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from quantizers import quantizer_of
from quantizers.checkpoint.one_by_one import OneByOne
from quantizers.job import peak_device_memory_bytes, peak_memory_bytes
from quantizers.protocol import Job, Result
from quantpress.files import sums_of, write_text
from quantpress.machine.child import explained_exit, keep
from quantpress.record.base import Record

#: Formats of other packages import ``OneByOne`` from here (docs/add-a-format.md).
__all__ = ["OneByOne", "WaveJob", "WaveResult", "main"]


class WaveJob(Record):
    """The ``quantize`` jobs of the variants of a wave. All variants have the same format and the same ``prepared``
    folder."""

    jobs: list[Job]

    @property
    def writes(self) -> list[Path]:
        """The folders in which the jobs write."""
        return [folder for job in self.jobs for folder in job.writes]


class WaveResult(Record):
    """One result per job, in the order of the jobs.

    The seconds of a result are the time from the start of the wave until the job was done, divided by the number of
    jobs. The peak memory of a result is the peak from the start of the process until the job was done.
    """

    results: list[Result]


def main(wave_file: Path, result_file: Path) -> None:
    wave = WaveJob.model_validate_json(wave_file.read_bytes())
    for job in wave.jobs:
        job.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    outputs = quantizer_of(wave.jobs[0].variant).quantize_wave(wave.jobs)
    results = []
    for job, output in zip(wave.jobs, outputs, strict=True):
        result = Result(
            output=output,
            seconds=(time.monotonic() - started) / len(wave.jobs),
            peak_memory_bytes=peak_memory_bytes(),
            peak_device_memory_bytes=peak_device_memory_bytes(),
            sums=sums_of(job.out, output.files),
        )
        # The result lies beside the variant's files. So, if this run dies before the wave ends, the next run finds the
        # finished variants.
        keep(job, result, job.out.parent)
        results.append(result)
    write_text(result_file, WaveResult(results=results).model_dump_json(indent=1))


if __name__ == "__main__":
    with explained_exit():
        main(Path(sys.argv[1]), Path(sys.argv[2]))
