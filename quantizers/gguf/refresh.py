"""Gives a published rung (one GGUF variant) the metadata of a newer unquantized file. The rung's tensors stay the same.
Only the head of its file (all bytes before the first tensor) is new.

The result is, byte for byte, the file that llama-quantize would make of the newer unquantized file with the same
imatrix, but nothing is quantized. This works only if the newer file holds the tensors from which the rung was made.
Equal safetensors do not guarantee equal tensors, because the converter makes some tensors from config.json
(``rope_freqs.weight`` from ``rope_scaling``). config.json also decides the layout of other tensors: the number of heads
decides in which order the rows of queries and keys are stored.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from quantizers.gguf.dry_run import PlannedTensor
from quantizers.gguf.metadata import opened, read_note
from quantizers.gguf.rung_plan import load
from quantpress.errors import QuantpressError
from quantpress.files import atomic
from quantpress.source.gguf import Gguf, read_gguf
from quantpress.toolchain.llama_cpp import LlamaCpp

_ARCHITECTURE = "general.architecture"
#: Beginnings of metadata keys, without the architecture's name in front. The keys are of hyperparameters that only the
#: engine computes with: they do not change how the converter lays out tensors.
_COMPUTED_BY = (
    "context_length", "rope.freq_base", "rope.scaling.", "attention.sliding_window", "attention.layer_norm_rms_epsilon",
)  # fmt: skip


def other_tensors(model: Path, published: Path) -> str | None:
    """Returns how the tensors from which ``published`` was made differ from the tensors of ``model``. Returns None if
    the function finds no difference.

    ``published`` is a rung's file, and ``model`` is an unquantized file. The function compares the names and shapes of
    their tensors, and the hyperparameters that decide the layout of tensors. If a tensor has the same type in both
    files, the function also compares its values. This is so for vectors, and for the tensors that the converter makes
    from config.json.
    """
    old, new = read_gguf(published), read_gguf(model)
    before, now = _hyperparameters(old), _hyperparameters(new)
    if changed := sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key)):
        return f"{changed[0]} was {before.get(changed[0], 'absent')} and is {now.get(changed[0], 'absent')}"
    tensors = {tensor.name: tensor for tensor in new.tensors}
    shapes = {tensor.name: tensor.shape for tensor in old.tensors}
    for name in sorted(shapes.keys() | tensors.keys()):
        if name not in shapes:
            return f"{name} is new"
        if name not in tensors:
            return f"{name} is gone"
        if shapes[name] != tensors[name].shape:
            return f"{name} has another shape"
    for tensor in old.tensors:
        other = tensors[tensor.name]
        if tensor.type == other.type and not _same_bytes(tensor.data, other.data):
            return f"{tensor.name} has other values"
    return None


def _hyperparameters(file: Gguf) -> dict[str, Any]:
    """Returns the architecture, and the hyperparameters that decide the layout of tensors."""
    architecture = str(file.text(_ARCHITECTURE))
    prefix = f"{architecture}."
    found = {
        key: value.decode(errors="replace") if isinstance(value, bytes) else value
        for key, value in file.metadata.items()
        if key.startswith(prefix) and not key.removeprefix(prefix).startswith(_COMPUTED_BY)
    }
    return {_ARCHITECTURE: architecture, **found}


def _same_bytes(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    return np.array_equal(one.reshape(-1).view(np.uint8), other.reshape(-1).view(np.uint8))


def refresh_rung(tools: LlamaCpp, model: Path, published: Path, file: Path) -> None:
    """Writes ``file``: first the head that llama-quantize would write for ``model``, then the tensors of ``published``.

    Call this function only if :func:`other_tensors` returns None for ``model`` and ``published``. Raises
    :class:`QuantpressError` when ggml cannot be loaded or ``published`` is not complete.
    """
    ggml, obstacle = load(tools)
    if ggml is None:
        raise QuantpressError(f"the metadata of {published.name} cannot be written: {obstacle}")
    old = read_gguf(published)
    sources = {tensor.name: tensor for tensor in read_gguf(model).tensors}
    tensors = []
    for tensor in old.tensors:
        width, rows, matrices, more = (*tensor.shape, 1, 1, 1)[:4]
        shape = (width, rows, matrices, more)
        tensors.append(PlannedTensor(tensor.name, shape, sources[tensor.name].type, tensor.type))
    file_type = int(old.metadata["general.file_type"])
    with opened(ggml, model) as source:
        head = source.head(tensors, file_type, read_note(old))
    size = published.stat().st_size - old.data_begin
    with atomic(file) as temporary, published.open("rb") as stream, temporary.open("wb") as out:
        out.write(head.data)
        stream.seek(old.data_begin)
        shutil.copyfileobj(stream, out, 1 << 24)
        if out.tell() != len(head.data) + size or out.tell() != head.file_bytes:
            raise QuantpressError(f"{published.name} does not end where its tensors do: verify the repo")
