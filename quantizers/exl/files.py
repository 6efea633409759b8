"""Tidies the folder that one of ExLlama's converters wrote, and describes the files in it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from quantizers.checkpoint.files import make_plain
from quantizers.protocol import Job, Output, Parameters
from quantpress.source.safetensors import contents

#: The name of the file that holds what ``exl2`` measures once per model. turboderp publishes this file under the same
#: name.
MEASUREMENT = "measurement.json"
#: Only these files of a converter's output belong to the model. The converter copies all other files from the source's
#: folder, for example a model card.
_KEPT = ("*.safetensors", "*.safetensors.index.json", "config.json", "quantization_config.json")

#: Maps the names that safetensors gives to data types to our names.
_UNQUANTIZED = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}

#: A function that takes a tensor's name and the safetensors file that holds the tensor. It returns a dict from a type
#: to the number of quantized weights of this type in the tensor.
Reader = Callable[[str, Any], dict[str, int]]


def output(job: Job, read: Reader, beside: tuple[str, ...], details: Parameters) -> Output:
    """Removes the files of ``job.out`` that do not belong to the model, copies the source's tokenizer and chat files
    there, and describes the result.

    ``read`` counts the quantized weights in a tensor. If a tensor's name ends with one of ``beside``, the tensor counts
    for the size but holds no weights. Every other tensor in which ``read`` finds nothing is not quantized.
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
