"""Makes EXL3 checkpoints with ExLlamaV3's converter, in this process. Needs the toolchain ``exllamav3`` and CUDA."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from quantizers.checkpoint.calibration import calibration_windows
from quantizers.exl.files import output
from quantizers.protocol import Job, Output
from quantpress.errors import QuantpressError
from quantpress.toolchain.exllama import EXLLAMAV3, activate

#: Seconds between the converter's own checkpoints. A job that was ended starts again from the beginning and needs none.
_NEVER = "86400"
#: The tensors of a quantized linear other than its trellis: signs and scales of both sides, and which codebook is used.
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
    """Writes windows in the form that both converters read: ``input_ids``, int64 ``[windows, length]``."""
    import torch
    from safetensors.torch import save_file

    save_file({"input_ids": torch.tensor(windows)}, path)


def trellis_weights(name: str, file: Any) -> dict[str, int]:
    """Counts a linear's weights by the bits of its trellis.

    A trellis is int16 ``[rows / 16, columns / 16, 16 * bits]``: each weight in a tile of 16 x 16 takes ``bits`` bits.
    Rows and columns are padded to multiples of 128. The count includes the padding.
    """
    if not name.endswith(".trellis"):
        return {}
    rows, columns, words = file.get_slice(name).get_shape()
    return {f"trellis{words / 16:g}": rows * columns * 256}
