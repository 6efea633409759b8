"""The ``gguf`` format: an F16 GGUF and its imatrix once per model, then llama-quantize once per rung."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from quantizers.gguf.ladder import DEFAULT, LADDERS, NOMINAL_BITS, check_rung
from quantizers.protocol import Job, Output, Parameters, Variant
from quantpress.errors import QuantpressError, Refused
from quantpress.files import atomic, sha256_of, write_text

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FALLBACKS = re.compile(r"(\d+) of (\d+) tensor\(s\) required fallback quantization")


class GGUF:
    """Implements :class:`quantizers.protocol.Quantizer`."""

    format = "gguf"
    suffix = "GGUF"
    engine: Literal["llama.cpp", "transformers"] = "llama.cpp"

    def ladders(self) -> dict[str, list[str]]:
        return {name: list(rungs) for name, rungs in LADDERS.items()}

    def default_variants(self, config: Parameters) -> list[str]:
        return list(DEFAULT)

    def variant(self, name: str, config: Parameters) -> Variant:
        check_rung(name)
        return Variant(
            format=self.format,
            name=name,
            parameters={"type": name, "from": "F16", "imatrix": True},
            nominal_bits=NOMINAL_BITS[name],
        )

    def check_name(self, name: str) -> None:
        check_rung(name)

    def version(self) -> str:
        from quantpress.toolchain.llama_cpp import planned_version

        return planned_version()

    def tools(self) -> dict[str, str]:
        return {"llama.cpp": self.version()}

    def unquantized(self, job: Job) -> Path:
        return unquantized_file(job.prepared, job.model_name)

    def shared_files(self, job: Job) -> list[Path]:
        return [imatrix_file(job.prepared, job.model_name)]

    def prepare(self, job: Job) -> None:
        """Makes ``{Model}-F16.gguf``, ``{Model}.imatrix.gguf`` and its report in ``job.prepared``."""
        from quantizers.gguf.convert import convert
        from quantizers.gguf.imatrix import make_imatrix
        from quantpress.toolchain.llama_cpp import install
        from quantpress.toolchain.options import processor_options

        tools = install()
        model = unquantized_file(job.prepared, job.model_name)
        convert(tools, job.source, job.model_name, model)
        report = make_imatrix(
            tools,
            model,
            job.calibration,
            imatrix_file(job.prepared, job.model_name),
            processor_options(job.threads, job.device),
        )
        write_text(report_file(job.prepared, job.model_name), report.model_dump_json(indent=1) + "\n")

    def quantize(self, job: Job) -> Output:
        """Makes ``{Model}-{RUNG}.gguf`` in ``job.out``; the file appears only when it is whole."""
        from quantizers.gguf.imatrix import ImatrixReport
        from quantizers.gguf.types import contents
        from quantpress.toolchain.llama_cpp import install
        from quantpress.toolchain.run import run_tool

        tools = install()
        rung = job.variant.name
        check_rung(rung)
        model = unquantized_file(job.prepared, job.model_name)
        imatrix = imatrix_file(job.prepared, job.model_name)
        report = ImatrixReport.model_validate_json(report_file(job.prepared, job.model_name).read_bytes())
        file = job.out.resolve() / f"{job.model_name}-{rung}.gguf"
        with atomic(file) as temporary:
            # The imatrix's name is stored in the file: a relative one keeps this machine's paths out of it.
            command: list[str | Path] = [tools.quantize, "--imatrix", imatrix.name, model.name, temporary]
            said = run_tool([*command, rung, str(job.threads)], job.prepared)
            if not temporary.exists():
                raise QuantpressError(f"llama-quantize wrote no {file.name}, and said: {said[-300:]}")
            inside = contents(temporary)
        fallbacks = _FALLBACKS.search(said)
        return Output(
            files=[file.name],
            bits_per_weight=inside.bits_per_weight,
            tensor_types=inside.weights,
            details={
                "weights": inside.total_weights,
                "fallbacks": int(fallbacks[1]) if fallbacks else 0,
                "imatrix": report.model_dump() | {"sha256": sha256_of(imatrix)},
            },
        )


def unquantized_file(prepared: Path, model_name: str) -> Path:
    """The F16 GGUF that every rung is made from. Raises :class:`Refused` for a name that is no file name."""
    return prepared.resolve() / f"{_checked(model_name)}-F16.gguf"


def imatrix_file(prepared: Path, model_name: str) -> Path:
    """The imatrix; clients do not take a file named so for a model."""
    return prepared.resolve() / f"{_checked(model_name)}.imatrix.gguf"


def report_file(prepared: Path, model_name: str) -> Path:
    """What the imatrix rests on, as JSON (:class:`quantizers.gguf.imatrix.ImatrixReport`)."""
    return prepared.resolve() / f"{_checked(model_name)}.imatrix.json"


def _checked(model_name: str) -> str:
    if not _SAFE_NAME.fullmatch(model_name):
        raise Refused(f"model name {model_name!r} is not a plain file name: use letters, digits, '.', '_' and '-'")
    return model_name
