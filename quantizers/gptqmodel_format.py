"""What the formats that GPTQModel makes have in common: whole checkpoints, measured by transformers, one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from quantizers.protocol import Job
from quantizers.wave import OneByOne


class GPTQModelFormat(OneByOne):
    """The part of :class:`quantizers.protocol.Quantizer` that is the same for ``gptq`` and ``awq``."""

    engine: Literal["llama.cpp", "transformers"] = "transformers"

    def version(self) -> str:
        from quantizers.gptqmodel_backend import installed_version

        return installed_version()

    def tools(self) -> dict[str, str]:
        name, _, version = self.version().partition(" ")
        return {name: version}

    def unquantized(self, job: Job) -> Path:
        return job.source

    def shared_files(self, job: Job) -> list[Path]:
        return []

    def prepare(self, job: Job) -> None:
        """Nothing is shared: what GPTQ and AWQ measure in a layer depends on how the layers before were quantized."""
