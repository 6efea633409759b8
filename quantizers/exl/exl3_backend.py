"""Makes EXL3 checkpoints with ExLlamaV3's converter. The converter runs in this process. It needs the toolchain
``exllamav3`` and CUDA."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from quantizers.checkpoint.calibration import calibration_windows
from quantizers.exl.files import output
from quantizers.protocol import Job, Output
from quantpress.errors import QuantpressError
from quantpress.toolchain.exllama import EXLLAMAV3, activate

#: The seconds between the checkpoints from which the converter could resume. No job needs these checkpoints, because a
#: job that was killed starts again from the beginning.
_NEVER = "86400"
#: The endings of the tensors that a quantized linear layer has besides its trellis. They hold the signs and scales of
#: the layer's inputs and outputs, and say which codebook the layer uses.
_BESIDE = (".suh", ".svh", ".su", ".sv", ".mcg", ".mul1")


def quantize_exl3(job: Job) -> Output:
    """Makes an EXL3 checkpoint in ``job.out``."""
    activate(EXLLAMAV3)
    from exllamav3.conversion import convert_model

    windows = calibration_windows(job.source, job.calibration)
    with tempfile.TemporaryDirectory(prefix=".exl3-", dir=job.out.parent) as scratch:
        tokens = Path(scratch) / "tokens.safetensors"
        save_tokens(windows, tokens)
        options = {
            "--in_dir": job.source,
            "--out_dir": job.out,
            "--work_dir": Path(scratch) / "work",
            "--bits": job.variant.parameters["bits"],
            "--head_bits": job.variant.parameters["head_bits"],
            "--cal_data": tokens,
            "--cal_rows": len(windows),
            "--cal_cols": job.calibration.length,
            "--checkpoint_interval": _NEVER,
        }
        arguments = convert_model.parser.parse_args([str(part) for pair in options.items() for part in pair])
        prepared, state, ready, refusal = convert_model.prepare(arguments)
        if not ready:
            raise QuantpressError(f"ExLlamaV3 refuses: {refusal}")
        convert_model.main(prepared, state)
    return output(job, trellis_weights, _BESIDE, {"calibration_tokens": sum(map(len, windows))})


def save_tokens(windows: list[list[int]], path: Path) -> None:
    """Writes windows of tokens to a file that both ExLlama converters read. The file holds one tensor, ``input_ids``,
    int64 ``[windows, length]``."""
    import torch
    from safetensors.torch import save_file

    save_file({"input_ids": torch.tensor(windows)}, path)


def trellis_weights(name: str, file: Any) -> dict[str, int]:
    """Returns a dict from the type of a linear layer's trellis to the number of the layer's weights. ``name`` is a
    tensor in ``file``.

    A trellis is int16 ``[rows / 16, columns / 16, 16 * bits]``. So each weight in a tile of 16 x 16 weights takes
    ``bits`` bits. Rows and columns are padded to multiples of 128. The number of weights includes this padding.
    """
    if not name.endswith(".trellis"):
        return {}
    rows, columns, words = file.get_slice(name).get_shape()
    return {f"trellis{words / 16:g}": rows * columns * 256}
