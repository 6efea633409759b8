"""What ExLlama's converters leave, and what is in it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from quantizers.checkpoint.files import make_plain
from quantizers.protocol import Job, Output, Parameters
from quantpress.source.safetensors import contents

#: What ``exl2`` measures once per model, by the name under which turboderp publishes it.
MEASUREMENT = "measurement.json"
#: What of a converter's output is the model. It copies all else from the source's folder, a model card too.
_KEPT = ("*.safetensors", "*.safetensors.index.json", "config.json", "quantization_config.json")

#: safetensors' names of data types to ours.
_UNQUANTIZED = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}

#: A tensor's name, and what safetensors opened it in, to the quantized weights that it holds: counts by type.
Reader = Callable[[str, Any], dict[str, int]]


def output(job: Job, read: Reader, beside: tuple[str, ...], details: Parameters) -> Output:
    """Clears and describes ``job.out``.

    ``read`` counts what a tensor holds of quantized weights. Tensors whose names end as one of ``beside`` count as size
    alone; all others are not quantized.
    """
    kept = {path for pattern in _KEPT for path in job.out.glob(pattern)}
    for path in set(job.out.iterdir()) - kept:
        path.unlink()
    make_plain(job, "float16")
    source, weights = contents(job.source), Counter[str]()
    for name, file in _tensors(job.out):
        found = read(name, file)
        if not found and not name.endswith(beside):
            view = file.get_slice(name)
            found = {_UNQUANTIZED[view.get_dtype()]: math.prod(view.get_shape())}
        weights.update(found)
    return Output(
        files=sorted(path.name for path in job.out.iterdir()),
        bits_per_weight=contents(job.out).bits / source.total_weights,
        tensor_types=dict(weights),
        details={"weights": source.total_weights, **details},
    )


def _tensors(folder: Path) -> Iterator[tuple[str, Any]]:
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "np") as file:
            for name in file.keys():  # noqa: SIM118 - no dict
                yield name, file
