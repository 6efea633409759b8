"""What is published beside a format's variants."""

from __future__ import annotations

from pathlib import Path

from quantizers.protocol import Job, Quantizer
from quantpress.source.source import licence_files


def shared_files(chosen: Quantizer, job: Job) -> list[Path]:
    """What the format's quantizer prepared for all (an imatrix), and the source's licence and notices."""
    return [*chosen.shared_files(job), *licence_files(job.source)]
