"""Makes EXL2 checkpoints with ExLlamaV2's converter. The converter runs in this process. It needs the toolchain
``exllamav2`` and CUDA.

The converter is a script, so this module runs it as a script. This module replaces two parts of the converter. The
first is the converter's module ``tokenize``, which tokenizes a calibration text. The replacement gives the converter
our windows of tokens. The second is the function ``test_error``, which measures how accurate each bit width is in each
layer. The replacement is the function that :func:`token_accuracy` returns.
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
#: The number of calibration windows on which the script tries every bit width in every layer. The number is the
#: script's own default for ``--measurement_rows``.
_MEASURED_WINDOWS = 16
_BESIDE = (".q_scale", ".q_scale_max", ".q_groups", ".q_invperm", ".q_perm", ".q_group_map")


def measure_exl2(job: Job) -> None:
    """Makes ``measurement.json`` in ``job.prepared``, unless the file exists already."""
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
    """Makes an EXL2 checkpoint in ``job.out``. Uses the measurement that the step ``prepare`` made."""
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
        # On every mistake the script raises SystemExit, mostly with code 0. So the code says nothing, and the caller
        # checks the files that the script made.
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

    For each token, the returned function divides the norm of the error by the norm of the layer's output, in float32.
    The result is 1 minus the mean of these ratios over all tokens.

    ExLlamaV2's own function divides the norms of whole windows. But in some layers of many models, one token of each
    window is larger than all other tokens by orders of magnitude. Mostly it is the first token (Sun et al., "Massive
    Activations in Large Language Models", arXiv:2402.17762). With norms of whole windows, errors in these layers seem
    small, so the converter gives these layers only 2 and 3 bits. docs/benchmarks.md says what this costs.

    The returned function takes these arguments: a module with a method ``forward``, windows of the module's input,
    windows of the module's unquantized output, and the arguments that ``forward`` takes after the input. All windows
    are float16 ``[1, tokens, width]``. The module is on ``device``. The windows can be on any device.
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
    """Returns a dict from each bit width of a linear layer to the number of weights with this bit width. ``name`` is a
    tensor in ``file``.

    ``q_weight`` (int32 ``[packed rows, columns]``) holds the weights in packed 32-bit words. ``q_groups`` holds two
    numbers for each group of rows: the group's bits per weight, and the group's first packed row in ``q_weight``.
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
