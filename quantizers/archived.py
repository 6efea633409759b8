"""What AutoGPTQ and AutoAWQ have in common: they first wrote the checkpoints of ``gptq`` and ``awq``, and are archived.

Both run in an environment of their own (:mod:`quantpress.toolchain.archived_libraries`), as a program that imports
nothing of this package: it reads a JSON job and leaves a checkpoint folder. Tokens to calibrate on are chosen here, so
that all backends see the same.
"""

from __future__ import annotations

import json
from pathlib import Path

from quantizers.protocol import Job, Output
from quantpress.files import write_text
from quantpress.toolchain import archived_libraries


class ArchivedLibrary:
    """What both say of the library that makes them; refused where its environment is not installed."""

    library: str

    def version(self) -> str:
        archived_libraries.require()
        return f"{self.library} {archived_libraries.pins()[self.library]}"

    def tools(self) -> dict[str, str]:
        return {self.library: archived_libraries.pins()[self.library]}


def make_checkpoint(job: Job, program: Path) -> Output:
    """Runs ``program`` in the archived libraries' environment and describes what it made."""
    from quantizers.checkpoint.calibration import calibration_windows
    from quantizers.checkpoint.files import describe, make_plain, source_config, stored_dtype
    from quantizers.gptqmodel.backend import packed
    from quantpress.toolchain.run import run_tool

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
    # Isolated (-I): neither PYTHONPATH nor the user's packages reach the other environment.
    run_tool([archived_libraries.require(), "-I", program, order_file], job.out)
    order_file.unlink()
    make_plain(job, dtype)
    return describe(job, packed(job), {"calibration_tokens": sum(map(len, windows))})
