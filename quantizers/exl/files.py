"""Clears and describes the files that ExLlama's converters leave."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from quantizers.checkpoint.files import make_plain
from quantizers.protocol import Job, Output, Parameters
from quantpress.source.safetensors import contents

#: The file of what ``exl2`` measures once per model. turboderp publishes it under this name.
MEASUREMENT = "measurement.json"
#: The files of a converter's output that are the model. The converter copies the others from the source's folder,
#: including a model card.
_KEPT = ("*.safetensors", "*.safetensors.index.json", "config.json", "quantization_config.json")

#: safetensors' names of data types to ours.
_UNQUANTIZED = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}

#: Takes a tensor's name and the safetensors file that holds it. Returns the counts of quantized weights in it, by type.
Reader = Callable[[str, Any], dict[str, int]]


def output(job: Job, read: Reader, beside: tuple[str, ...], details: Parameters) -> Output:
    """Clears and describes ``job.out``.

    ``read`` counts the quantized weights in a tensor. Tensors whose names end with one of ``beside`` add to the size
    only. All other tensors are not quantized.
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
