"""Calls llama-quantize for one rung, with its arguments, and reads the numbers of its file types."""

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
    """The options before the model's name. The imatrix is given by its bare name, because the file stores that name."""
    weights = [] if imatrix is None else ["--imatrix", imatrix.name]
    return [*weights, *rung.options]


def quantize_alone(tools: LlamaCpp, model: Path, imatrix: Path | None, rung: Rung, file: Path, threads: int) -> str:
    """Makes one rung's ``file`` with llama-quantize, atomically, and returns llama-quantize's output.

    llama-quantize runs in the folder of ``model``, where ``imatrix`` lies too. Raises ``ChildFailed`` when it fails,
    and :class:`QuantpressError` when it succeeds and writes nothing.
    """
    file = file.resolve()
    with atomic(file) as temporary:
        command: list[str | Path] = [tools.quantize, *arguments(rung, imatrix), model.name, temporary]
        said = run_tool([*command, rung.type, str(threads)], model.parent)
        if not temporary.exists():
            raise QuantpressError(f"llama-quantize wrote no {file.name}, and said: {said[-300:]}")
    return said


def file_types(tools: LlamaCpp) -> dict[str, int]:
    """The numbers of ``general.file_type`` by llama-quantize's name of the type, read from its usage.

    Raises :class:`QuantpressError` when the usage names no file types.
    """
    # It prints its usage for any wrong option, with exit code 1.
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
