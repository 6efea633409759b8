"""Makes one rung (one GGUF variant) with llama-quantize. Also reads the numbers that llama-quantize gives to file
types."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from quantizers.gguf.ladder import Rung
from quantpress.errors import QuantpressError
from quantpress.files import atomic
from quantpress.machine.child import child_environment
from quantpress.toolchain.llama_cpp import LlamaCpp
from quantpress.toolchain.run import run_tool

#: A line of llama-quantize's usage: ``  15  or  Q4_K_M  :  4.58G, …``.
_FILE_TYPE = re.compile(r"^ *(\d+) +or +(\w+) *:", re.MULTILINE)


def arguments(rung: Rung, imatrix: Path | None) -> list[str]:
    """Returns the options that come before the model's name. The imatrix is given by its name without a folder, because
    llama-quantize stores this name in the rung's file."""
    weights = [] if imatrix is None else ["--imatrix", imatrix.name]
    return [*weights, *rung.options]


def quantize_alone(tools: LlamaCpp, model: Path, imatrix: Path | None, rung: Rung, file: Path, threads: int) -> str:
    """Makes the rung's ``file`` with llama-quantize, and returns llama-quantize's output. ``file`` appears only when it
    is complete.

    llama-quantize runs in the folder of ``model``. ``imatrix`` must lie there too. Raises ``ChildFailed`` when
    llama-quantize fails, and :class:`QuantpressError` when llama-quantize reports success but writes nothing.
    """
    file = file.resolve()
    with atomic(file) as temporary:
        command: list[str | Path] = [tools.quantize, *arguments(rung, imatrix), model.name, temporary]
        said = run_tool([*command, rung.type, str(threads)], model.parent)
        if not temporary.exists():
            raise QuantpressError(f"llama-quantize wrote no {file.name}, and said: {said[-300:]}")
    return said


def file_types(tools: LlamaCpp) -> dict[str, int]:
    """Returns a dict from llama-quantize's name of a type to the type's number in ``general.file_type``. Both come from
    llama-quantize's usage text.

    Raises :class:`QuantpressError` when the usage text names no file types.
    """
    # llama-quantize prints its usage text for --help as for an unknown option, and exits with code 1. So the exit code
    # is not checked.
    done = subprocess.run(
        [str(tools.quantize), "--help"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=child_environment(),
        check=False,
    )
    found = {name: int(number) for number, name in _FILE_TYPE.findall(done.stdout)}
    if not found:
        raise QuantpressError(f"{tools.quantize} --help names no file types: is it llama-quantize?")
    return found
