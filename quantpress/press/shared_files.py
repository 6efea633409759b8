"""Lists the files that a format's repo holds in addition to the files of the variants."""

from __future__ import annotations

from pathlib import Path

from quantizers.protocol import Job, Quantizer
from quantpress.source.source import licence_files


def shared_files(chosen: Quantizer, job: Job) -> list[Path]:
    """Returns the files that the quantizer prepared for all variants (such as an imatrix), and the source's licence and
    notices."""
    return [*chosen.shared_files(job), *licence_files(job.source)]
