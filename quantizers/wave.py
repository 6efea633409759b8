"""Variants that are made together: ``python -m quantizers.wave WAVE.json RESULT.json`` in a child process."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from quantizers import quantizer_of
from quantizers.job import peak_device_memory_bytes, peak_memory_bytes
from quantizers.protocol import Job, Layout, Output, Record, Result, Variant
from quantpress.files import write_text
from quantpress.machine.child import explained_exit, keep


class Wave(Record):
    """The ``quantize`` jobs of several variants of one format, with one ``prepared`` folder."""

    jobs: list[Job]


class WaveResult(Record):
    """A result per job, in their order; each has an equal share of the wave's seconds until it was done, and the peak
    memory until then."""

    results: list[Result]


class OneByOne:
    """For formats whose variants are checkpoints that share no work: every variant is a wave of its own."""

    continues = False

    def check(self, job: Job) -> None:
        """Nothing that the plan did not see in config.json already."""

    def costly_files(self, model_name: str) -> list[str]:
        return []

    def refresh(self, job: Job) -> str | None:
        from quantizers.checkpoint.files import refresh_checkpoint

        refresh_checkpoint(job)
        return None

    def layout(self, job: Job, variants: list[Variant], standing: list[Variant], budget: int | None) -> Layout:
        return Layout(waves=[[variant.name] for variant in variants])

    def quantize_wave(self, jobs: list[Job]) -> list[Output]:
        raise NotImplementedError("variants of this format are never made together")


def main(wave_file: Path, result_file: Path) -> None:
    wave = Wave.model_validate_json(wave_file.read_bytes())
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
        )
        # Beside the variant's files: a press that dies before the wave is done finds what is done of it.
        keep(job, result, job.out.parent)
        results.append(result)
    write_text(result_file, WaveResult(results=results).model_dump_json(indent=1))


if __name__ == "__main__":
    with explained_exit():
        main(Path(sys.argv[1]), Path(sys.argv[2]))
