"""Makes EXL2 checkpoints with ExLlamaV2's converter, in this process. Needs the toolchain ``exllamav2`` and CUDA.

The converter is a script and is run as one. Two of its parts are replaced: its module that tokenizes a calibration text
gives our windows instead, and the accuracy of each bit width in each layer is :func:`token_accuracy`.
"""

from __future__ import annotations

import json
import runpy
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from quantizers.checkpoint.calibration import calibration_windows
from quantizers.exl.exl3_backend import save_tokens
from quantizers.exl.files import MEASUREMENT, output
from quantizers.protocol import Job, Output
from quantpress.errors import QuantpressError
from quantpress.files import write_text
from quantpress.toolchain.exllama import EXLLAMAV2, activate

_SCRIPT = "exllamav2.conversion.convert_exl2"
#: Windows on which every bit width is tried in every layer: the script's own default (its ``--measurement_rows``).
_MEASURED_WINDOWS = 16
_BESIDE = (".q_scale", ".q_scale_max", ".q_groups", ".q_invperm", ".q_perm", ".q_group_map")


def measure_exl2(job: Job) -> None:
    """Makes ``measurement.json`` in ``job.prepared``, unless it is there already."""
    if (job.prepared / MEASUREMENT).exists():
        return
    with tempfile.TemporaryDirectory(prefix=".exl2-", dir=job.prepared) as scratch:
        made = Path(scratch) / MEASUREMENT
        windows = calibration_windows(job.source, job.calibration)[:_MEASURED_WINDOWS]
        _run(job, Path(scratch) / "work", windows, {"--output_measurement": made})
        if not made.is_file():
            raise QuantpressError("ExLlamaV2 measured nothing: the log says why")
        made.rename(job.prepared / MEASUREMENT)


def quantize_exl2(job: Job) -> Output:
    """Makes an EXL2 checkpoint in ``job.out``, using the measurement that ``prepare`` made."""
    windows = calibration_windows(job.source, job.calibration)
    options = {
        "--compile_full": job.out,
        "--measurement": job.prepared / MEASUREMENT,
        "--bits": job.variant.parameters["bits"],
        "--head_bits": job.variant.parameters["head_bits"],
    }
    with tempfile.TemporaryDirectory(prefix=".exl2-", dir=job.out.parent) as scratch:
        _run(job, Path(scratch), windows, options)
    config = job.out / "config.json"
    if not config.is_file():
        raise QuantpressError("ExLlamaV2 made no checkpoint: the log says why")
    written = json.loads(config.read_bytes())
    written["quantization_config"]["calibration"]["dataset"] = job.calibration.name
    write_text(config, json.dumps(written))
    return output(job, packed_weights, _BESIDE, {"calibration_tokens": sum(map(len, windows))})


def _run(job: Job, work: Path, windows: list[list[int]], options: dict[str, Any]) -> None:
    activate(EXLLAMAV2)
    tokenizing = ModuleType("exllamav2.conversion.tokenize")
    tokenizing.__dict__["tokenize"] = _given(windows)
    sys.modules[tokenizing.__name__] = tokenizing
    import_module("exllamav2.conversion.measure").__dict__["test_error"] = token_accuracy(job.device)
    length = job.calibration.length
    always = {"--in_dir": job.source, "--out_dir": work, "--length": length, "--measurement_length": length}
    sys.argv = [_SCRIPT, *(str(part) for pair in (always | options).items() for part in pair)]
    try:
        runpy.run_module(_SCRIPT, run_name="__main__")
    except SystemExit as end:
        # The script exits like this on every mistake, mostly with code 0. So the caller looks at its files instead.
        print(f"{_SCRIPT} left with {end.code!r}", flush=True)


def _given(windows: list[list[int]]) -> Callable[..., None]:
    def tokenize(
        task: dict[str, Any], save: Any, tokenizer: Any, measure: bool = False, noise_rows: Any = None
    ) -> None:
        tokens = Path(task["out_dir"]) / "cal_data.safetensors"
        save_tokens(windows, tokens)
        task["cal_filename"] = str(tokens)
        task["measurement_rows" if measure else "dataset_rows"] = len(windows)

    return tokenize


def token_accuracy(device: str) -> Callable[..., float]:
    """Returns the function that replaces ExLlamaV2's ``test_error`` (exllamav2/conversion/measure.py).

    For each token it divides the norm of the error by the norm of the layer's output, in float32. Its result is 1 minus
    the mean of these ratios over all tokens.

    The original divides the norms of whole windows. In some layers of many models one token of each window, mostly the
    first, is larger than all others by orders of magnitude (Sun et al., "Massive Activations in Large Language Models",
    arXiv:2402.17762). Errors in these layers then seem small, and the converter gives the layers 2 and 3 bits.
    docs/benchmarks.md says what that costs.

    The function takes a module with ``forward``, windows of its input, windows of its unquantized output (both float16
    ``[1, tokens, width]``), and the arguments that ``forward`` takes after the input. The module is on ``device``; the
    windows can be on any device.
    """

    def accuracy(module: Any, inputs: Iterable[Any], targets: Iterable[Any], cache: Any, attention: Any) -> float:
        import torch

        errors: list[float] = []
        for given, target in zip(inputs, targets, strict=True):
            made, wanted = module.forward(given.to(device), cache, attention), target.to(device).float()
            if not module.model.config.arch.lm.residual_stream_fp32:
                made = made.clamp(-65504, 65504)  # to float16's range, as in the original
            norms = wanted.norm(dim=-1).clamp(min=torch.finfo(torch.float32).tiny)
            errors.append(((made.float() - wanted).norm(dim=-1) / norms).mean().item())
        return max(1e-6, 1 - sum(errors) / len(errors))

    return accuracy


def packed_weights(name: str, file: Any) -> dict[str, int]:
    """Counts a linear's weights by bit width.

    ``q_groups`` holds, for each group of rows, its number of bits and its first row of packed 32-bit words in
    ``q_weight`` (int32 ``[packed rows, columns]``).
    """
    if not name.endswith(".q_weight"):
        return {}
    packed_rows, columns = file.get_slice(name).get_shape()
    groups = file.get_tensor(name.removesuffix(".q_weight") + ".q_groups").astype(int).reshape(-1, 2)
    ends = [*groups[1:, 1].tolist(), packed_rows]
    counts: Counter[str] = Counter()
    for (bits, first), end in zip(groups.tolist(), ends, strict=True):
        counts[f"int{bits}"] += (end - first) * 32 // bits * columns
    return dict(counts)
