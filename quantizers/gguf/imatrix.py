"""The importance matrix: how much each input of each matrix is used on the calibration text."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from quantizers.protocol import CalibrationText
from quantpress.errors import BadInput, QuantpressError
from quantpress.files import atomic
from quantpress.toolchain.llama_cpp import LlamaCpp
from quantpress.toolchain.run import run_tool

_COUNTS = ".counts"
_TOO_FEW = re.compile(r"the data file you provided tokenizes to only (\d+) tokens")
_STARTED = re.compile(r"computing over (\d+) chunks")


class ImatrixReport(BaseModel):
    """What an imatrix rests on. ``unused`` names tensors that no token reached: experts never chosen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    windows: int
    window_tokens: int
    tensors: int
    unused: list[str]


def make_imatrix(
    tools: LlamaCpp, model: Path, calibration: CalibrationText, file: Path, options: list[str]
) -> ImatrixReport:
    """Writes ``file`` from the unquantized ``model`` beside it, over ``samples`` windows of ``length`` tokens.

    llama-imatrix runs in the model's folder with relative names only, for it stores the name of its text.
    Raises :class:`BadInput` when the text is too short, :class:`QuantpressError` when a sum is not finite.
    """
    folder = model.parent
    text = folder / "calibration.txt"
    text.unlink(missing_ok=True)
    text.symlink_to(calibration.path.resolve())
    with atomic(file) as temporary:
        command: list[str | Path] = [tools.imatrix, "--model", model.name, "--file", text.name]
        command += ["--output", temporary.name, "--output-format", "gguf", "--no-ppl"]
        command += ["--chunks", str(calibration.samples), "--ctx-size", str(calibration.length)]
        command += ["--batch-size", str(calibration.length), *options]
        try:
            run_tool(command, folder, lambda line: _check_enough(line, calibration))
        finally:
            text.unlink()
        report = read_report(temporary)
    return report


def _check_enough(line: str, calibration: CalibrationText) -> None:
    """Ends llama-imatrix when it says that it has less text than it is to use."""
    length = calibration.length
    if found := _TOO_FEW.search(line):
        windows = int(found[1]) // length
    elif found := _STARTED.search(line):
        windows = int(found[1])
    else:
        return
    if windows < calibration.samples:
        raise BadInput(
            f"calibration text {calibration.name} has {windows} windows of {length} tokens, and {calibration.samples} "
            "are asked for: ask for fewer samples or give more text"
        )


def read_report(file: Path) -> ImatrixReport:
    """Checks an imatrix in GGUF form. Raises :class:`QuantpressError` when a sum or count is not finite."""
    from gguf import GGUFReader

    reader = GGUFReader(file)
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    broken = sorted(name for name, data in tensors.items() if not np.isfinite(data).all())
    if broken:
        raise QuantpressError(
            f"the imatrix has non-finite values in {len(broken)} tensors ({broken[0]}, …): the model overflows on "
            "the calibration text"
        )
    names = [name.removesuffix(_COUNTS) for name in tensors if name.endswith(_COUNTS)]
    return ImatrixReport(
        windows=int(reader.fields["imatrix.chunk_count"].contents()),
        window_tokens=int(reader.fields["imatrix.chunk_size"].contents()),
        tensors=len(names),
        unused=sorted(name for name in names if bool((tensors[name + _COUNTS] == 0).any())),
    )
