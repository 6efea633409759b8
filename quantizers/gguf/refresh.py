"""A published rung with the metadata of another unquantized file: the same tensors behind a new head.

What llama-quantize would make of that file and the same imatrix, byte for byte, without quantizing.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from quantizers.gguf.dry_run import PlannedTensor
from quantizers.gguf.importance import read_importance
from quantizers.gguf.metadata import opened
from quantizers.gguf.rung_plan import load
from quantpress.errors import QuantpressError
from quantpress.files import atomic
from quantpress.toolchain.llama_cpp import LlamaCpp

#: The key by which a file says that an imatrix was used; see tools/quantize/quantize.cpp.
_IMATRIX = "quantize.imatrix.file"


def refresh_rung(tools: LlamaCpp, model: Path, imatrix: Path, published: Path, file: Path) -> None:
    """Writes ``file``: the tensors of ``published`` behind the head that llama-quantize writes for ``model``.

    Raises :class:`QuantpressError` when the two files do not hold the same tensors, or ggml cannot be loaded.
    """
    from gguf import GGUFReader

    ggml, obstacle = load(tools)
    if ggml is None:
        raise QuantpressError(f"the metadata of {published.name} cannot be written: {obstacle}")
    old = GGUFReader(published)
    sources = {tensor.name: tensor for tensor in GGUFReader(model).tensors}
    if {tensor.name: list(tensor.shape) for tensor in old.tensors} != {
        name: list(tensor.shape) for name, tensor in sources.items()
    }:
        raise QuantpressError(f"{published.name} holds other tensors than the source as it is now: press it anew")
    tensors = []
    for tensor in old.tensors:
        width, rows, matrices, more = (*(int(size) for size in tensor.shape), 1, 1, 1)[:4]
        shape = (width, rows, matrices, more)
        tensors.append(
            PlannedTensor(tensor.name, shape, sources[tensor.name].tensor_type.name, tensor.tensor_type.name)
        )
    file_type = int(old.fields["general.file_type"].contents())
    importance = read_importance(imatrix) if _IMATRIX in old.fields else None
    with opened(ggml, model) as source:
        head = source.head(tensors, file_type, importance)
    size = published.stat().st_size - int(old.data_offset)
    with atomic(file) as temporary, published.open("rb") as stream, temporary.open("wb") as out:
        out.write(head.data)
        stream.seek(int(old.data_offset))
        shutil.copyfileobj(stream, out, 1 << 24)
        if out.tell() != len(head.data) + size or out.tell() != head.file_bytes:
            raise QuantpressError(f"{published.name} does not end where its tensors do: verify the repo")
