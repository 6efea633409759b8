"""Runs one step of a quantizer in a child process: ``python -m quantizers.job JOB.json RESULT.json``."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

from quantizers import quantizer_of
from quantizers.protocol import Job, Output, Quantizer, Result
from quantpress.files import place, sums_of, write_text
from quantpress.machine.child import explained_exit
from quantpress.machine.peak_memory import own_peak_bytes


def peak_memory_bytes() -> int:
    """Returns the peak RSS of this process, or of the largest program that this process ran, if that is larger.

    On Linux, ``ru_maxrss`` is in KiB.
    """
    return max(own_peak_bytes(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)


def peak_device_memory_bytes() -> int | None:
    """Returns the most memory that PyTorch allocated on GPUs in this process, or None if PyTorch used no GPU."""
    if "torch" not in sys.modules:
        return None
    from quantpress.evaluation.engines.torch_runtime import peak_device_bytes

    return peak_device_bytes()


def main(job_file: Path, result_file: Path) -> None:
    job = Job.model_validate_json(job_file.read_bytes())
    chosen = quantizer_of(job.variant)
    started = time.monotonic()
    output: Output | None = None
    obstacle: str | None = None
    if job.step == "check":
        chosen.check(job)
    elif job.step == "prepare":
        job.prepared.mkdir(parents=True, exist_ok=True)
        _keep_published(chosen, job)
        chosen.prepare(job)
    elif job.step == "refresh":
        job.out.mkdir(parents=True, exist_ok=True)
        obstacle = chosen.refresh(job)
    else:
        job.out.mkdir(parents=True, exist_ok=True)
        output = chosen.quantize(job)
    seconds = time.monotonic() - started
    result = Result(
        output=output,
        seconds=seconds,
        sums=_sums_of(job, output),
        peak_memory_bytes=peak_memory_bytes(),
        peak_device_memory_bytes=peak_device_memory_bytes(),
        obstacle=obstacle,
    )
    write_text(result_file, result.model_dump_json(indent=1))


def _sums_of(job: Job, output: Output | None) -> dict[str, str]:
    match job.step:
        case "check":
            return {}
        case "prepare":
            return sums_of(job.prepared)
        case "refresh":
            return sums_of(job.out)
        case "quantize":
            assert output is not None
            return sums_of(job.out, output.files)


def _keep_published(chosen: Quantizer, job: Job) -> None:
    """Copies or links the published costly files (shared files that take long to make) into ``job.prepared``. So
    ``prepare`` finds these files and does not make them again."""
    if job.published is None:
        return
    for name in chosen.costly_files(job.model_name):
        if (job.published / name).is_file():
            place(job.published / name, job.prepared / name)


if __name__ == "__main__":
    with explained_exit():
        main(Path(sys.argv[1]), Path(sys.argv[2]))
