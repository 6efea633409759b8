"""What AutoGPTQ and AutoAWQ have in common. These two libraries were the first to write checkpoints in the formats
``gptq`` and ``awq``. Both libraries are archived.

Each library runs in a separate Python environment (:mod:`quantpress.toolchain.archived_libraries`), in a program that
imports nothing from quantpress. The program reads a JSON order and writes a checkpoint folder. This module chooses the
calibration tokens and puts them into the order, so that all backends calibrate on the same tokens.
"""

from __future__ import annotations

import json
from pathlib import Path

from quantizers.protocol import Job, Output
from quantpress.files import write_text
from quantpress.toolchain import archived_libraries


class ArchivedLibrary:
    """Gives a quantizer the name and the version of its archived library. ``version`` raises :class:`Refused` if the
    environment is not installed."""

    library: str

    def version(self) -> str:
        archived_libraries.require()
        return f"{self.library} {archived_libraries.pins()[self.library]}"

    def tools(self) -> dict[str, str]:
        return {self.library: archived_libraries.pins()[self.library]}


def make_checkpoint(job: Job, program: Path) -> Output:
    """Runs ``program`` in the archived libraries' environment and describes the checkpoint that it made."""
    from quantizers.checkpoint.calibration import calibration_windows
    from quantizers.checkpoint.files import describe, make_plain, source_config, stored_dtype
    from quantizers.gptqmodel.backend import packed
    from quantpress.evaluation.tensors import compare_tensors
    from quantpress.toolchain.run import run_tool

    compare_tensors(job.source)  # the library would fill a missing tensor with random numbers
    windows = calibration_windows(job.source, job.calibration)
    dtype = stored_dtype(source_config(job))
    order = {
        "source": str(job.source),
        "out": str(job.out),
        "parameters": {key: value for key, value in job.variant.parameters.items() if key != "backend"},
        "windows": windows,
        "dtype": dtype,
        "device": job.device,
        "threads": job.threads,
    }
    order_file = job.out / "order.json"
    write_text(order_file, json.dumps(order))
    # The option -I (isolated) keeps PYTHONPATH and the user's packages out of the other environment.
    run_tool([archived_libraries.require(), "-I", program, order_file], job.out)
    order_file.unlink()
    make_plain(job, dtype)
    return describe(job, packed(job), {"calibration_tokens": sum(map(len, windows))})
