"""Makes the importance matrix (imatrix) of a model. The imatrix says how much the model uses each input of each matrix
on the calibration text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quantizers.gguf.dry_run import dry_run
from quantizers.gguf.ladder import RUNGS
from quantizers.protocol import CalibrationText
from quantpress.errors import BadInput, QuantpressError
from quantpress.files import atomic
from quantpress.record.base import Record
from quantpress.source.gguf import read_gguf
from quantpress.toolchain.llama_cpp import LlamaCpp
from quantpress.toolchain.run import run_tool

_COUNTS = ".counts"
_TOO_FEW = re.compile(r"the data file you provided tokenizes to only (\d+) tokens")
_STARTED = re.compile(r"computing over (\d+) chunks")
_NONE_LEFT = re.compile(r"there will be not enough tokens left after removing \d+ chunks")
_NOT_FINITE = re.compile(r"non-finite values detected in (\S+)")
_WINDOWS, _WINDOW_TOKENS = "imatrix.chunk_count", "imatrix.chunk_size"
#: How many windows a segment has. Each segment is one run of llama-imatrix, which loads the model at its start and
#: saves the sums at its end.
_SEGMENT = 32
_LEAST_LEFT = 3
_LAYER = "blk."
#: The rung (GGUF variant) for which llama-quantize quantizes the most matrices, because the block size of Q8_0 divides
#: all usual widths.
_QUANTIZES_ALL = RUNGS["Q8_0"]


class ImatrixReport(Record):
    """The windows and the tensors that an imatrix is based on.

    ``unused`` names each tensor that no token reached. If a tensor holds several experts, ``unused`` also
    names it if no token reached one of its experts.
    """

    windows: int
    window_tokens: int
    tensors: int
    unused: list[str]


def make_imatrix(
    tools: LlamaCpp, model: Path, calibration: CalibrationText, file: Path, options: list[str]
) -> ImatrixReport:
    """Writes the imatrix of the unquantized ``model`` to ``file``, which lies in the same folder.

    The imatrix is computed over ``calibration.samples`` windows of ``calibration.length`` tokens. The windows are
    divided into segments. After each segment, the sums so far are saved beside ``file``. If a call finds saved sums, it
    continues after the last saved segment. Saving and loading does not change float32 sums. So ``file`` is, byte for
    byte, the file that one run over all windows would write. (llama-imatrix by itself can save its sums every few
    windows. These files are of no use here, because llama-imatrix saves them in the middle of a window: the first
    tensor's sums include this window, and the other tensors' sums do not.)

    llama-imatrix stores the name of the calibration text in ``file``. So it runs in the model's folder, with relative
    names only. Raises :class:`BadInput` when the text is too short, and :class:`QuantpressError` when a sum is not
    finite.
    """
    if file.exists():
        return _report_of(tools, file, model)
    folder, sums = model.parent, file.with_name(f"{file.stem}.partial.gguf")
    text = folder / "calibration.txt"
    text.unlink(missing_ok=True)
    text.symlink_to(calibration.path.resolve())
    try:
        done = read_report(sums).windows if sums.exists() else 0
        for start, end in segments(calibration.samples):
            if start < done:
                continue
            with atomic(file if end == calibration.samples else sums) as temporary:
                command: list[str | Path] = [tools.imatrix, "--model", model.name, "--file", text.name]
                command += ["--output", temporary.name, "--output-format", "gguf", "--no-ppl"]
                command += ["--output-frequency", str(calibration.samples + 1)]  # save only at the end
                command += ["--chunks", str(end - start), "--ctx-size", str(calibration.length)]
                command += ["--batch-size", str(calibration.length), *options]
                if start:
                    command += ["--chunk", str(start), "--in-file", sums.name]
                run_tool(command, folder, _Watch(calibration, start, end).look)
                read_report(temporary)
                if end < calibration.samples:
                    _drop_metadata(temporary, end)
    finally:
        text.unlink()
    sums.unlink(missing_ok=True)
    return _report_of(tools, file, model)


def _report_of(tools: LlamaCpp, file: Path, model: Path) -> ImatrixReport:
    """Returns the report of an imatrix. If the imatrix lacks a matrix of ``model`` completely, ``unused`` names this
    matrix too.

    This function checks only matrices that llama-quantize would quantize and that are in a layer, because llama-imatrix
    looks at layers only.
    """
    report = read_report(file)
    covered = {tensor.name.removesuffix(_COUNTS) for tensor in read_gguf(file).tensors}
    planned = dry_run(tools, model, None, _QUANTIZES_ALL).tensors
    quantized = (tensor.name for tensor in planned if tensor.target != tensor.source)
    missing = [name for name in quantized if name.startswith(_LAYER) and name not in covered]
    return report.model_copy(update={"unused": sorted([*report.unused, *missing])})


def segments(windows: int) -> list[tuple[int, int]]:
    """Returns two window numbers for each segment: the segment's first window, and the window after the segment's last
    window.

    llama-imatrix does not start if fewer than three windows are left (tools/imatrix/imatrix.cpp). So if only one or two
    windows would be left after the last whole segment, this segment takes them too.
    """
    starts = list(range(0, max(windows - _LEAST_LEFT + 1, 1), _SEGMENT))
    return list(zip(starts, [*starts[1:], windows], strict=True))


def _drop_metadata(file: Path, windows: int) -> None:
    """Removes all metadata of an imatrix except the number and the size of windows. Keeps the sums.

    Without this step, llama-imatrix would add the name of the calibration text to the metadata once more in each
    segment.
    """
    from gguf import GGUFWriter

    stripped = file.with_name(f"{file.name}.stripped.tmp")
    writer = GGUFWriter(stripped, "imatrix")
    reader = read_gguf(file)
    for key in (_WINDOWS, _WINDOW_TOKENS):
        writer.add_uint32(key, int(reader.metadata[key]))
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    stripped.replace(file)


@dataclass(frozen=True)
class _Watch:
    """Reads the output of llama-imatrix, which runs over the windows from ``start`` to ``end``. If the run cannot
    succeed, raises an error that ends it."""

    calibration: CalibrationText
    start: int
    end: int

    def look(self, line: str) -> None:
        if found := _NOT_FINITE.search(line):
            raise QuantpressError(_overflow(f"the inputs of {found[1]}"))
        calibration, found = self.calibration, _STARTED.search(line)
        if found and self.start + int(found[1]) < self.end:
            there = str(self.start + int(found[1]))
        elif found := _TOO_FEW.search(line):
            there = str(self.start + int(found[1]) // calibration.length)
        elif _NONE_LEFT.search(line):
            there = f"at most {self.start + _LEAST_LEFT - 1}"
        else:
            return
        raise BadInput(
            f"calibration text {calibration.name} has {there} windows of {calibration.length} tokens, and "
            f"{calibration.samples} are asked for: ask for fewer samples or give more text"
        )


def _overflow(where: str) -> str:
    return f"non-finite values in {where}: the model overflows on the calibration text"


def read_report(file: Path) -> ImatrixReport:
    """Checks an imatrix in GGUF form and returns a report of it. Raises :class:`QuantpressError` when a sum or count is
    not finite."""
    reader = read_gguf(file)
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    broken = sorted(name for name, data in tensors.items() if not np.isfinite(data).all())
    if broken:
        raise QuantpressError(_overflow(f"{len(broken)} tensors ({broken[0]}, …) of the imatrix"))
    names = [name.removesuffix(_COUNTS) for name in tensors if name.endswith(_COUNTS)]
    return ImatrixReport(
        windows=int(reader.metadata[_WINDOWS]),
        window_tokens=int(reader.metadata[_WINDOW_TOKENS]),
        tensors=len(names),
        unused=sorted(name for name in names if bool((tensors[name + _COUNTS] == 0).any())),
    )
