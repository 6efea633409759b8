"""Builds the head of a rung's file. A rung is one GGUF variant, and the head is all bytes before the first tensor. This
module calls ggml's own GGUF functions in the order in which llama-quantize calls them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from quantizers.gguf.dry_run import PlannedTensor
from quantizers.gguf.ggml import Ggml
from quantizers.gguf.importance import ImatrixNote
from quantpress.source.gguf import Gguf

#: ``GGML_QNT_VERSION`` in ggml.h.
_QUANTIZATION_VERSION = 2
#: ``GGUF_DEFAULT_ALIGNMENT``. llama-quantize pads each tensor to a multiple of this number of bytes, even if the source
#: has another alignment.
_ALIGNMENT = 32
#: The most bytes of a text that fit in ``llama_model_kv_override`` (llama.h), without the final zero.
_TEXT_BYTES = 127
#: The metadata keys with which a rung's file describes the imatrix that it was made with (tools/quantize/quantize.cpp).
_IMATRIX_FILE, _IMATRIX_TEXT = "quantize.imatrix.file", "quantize.imatrix.dataset"
_IMATRIX_ENTRIES, _IMATRIX_WINDOWS = "quantize.imatrix.entries_count", "quantize.imatrix.chunks_count"
_SPLIT_COUNT = b"split.count"
_SPLIT_KEYS = (b"split.no", _SPLIT_COUNT, b"split.tensors.count")


@dataclass(frozen=True)
class Head:
    """``data`` is all bytes of the file before its first tensor. ``offsets`` maps a tensor's name to where the tensor
    begins, in bytes from the file's start. ``file_bytes`` is the size of the whole file."""

    data: bytes
    offsets: dict[str, int]
    file_bytes: int


class UnquantizedTable:
    """The metadata and the list of tensors of an unquantized GGUF file, as ggml holds them."""

    def __init__(self, ggml: Ggml, table: int, shapes: int) -> None:
        self._ggml, self._library = ggml, ggml.library
        self._table, self._shapes = table, shapes

    @property
    def split(self) -> bool:
        """Whether the model is split into several files, and this file is one of them."""
        return bool(self._library.gguf_find_key(self._table, _SPLIT_COUNT) >= 0)

    def offset(self, name: str) -> int:
        """Returns where a tensor's data begins, in bytes from the file's start."""
        start: int = self._library.gguf_get_data_offset(self._table)
        index = self._library.gguf_find_tensor(self._table, name.encode())
        return start + int(self._library.gguf_get_tensor_offset(self._table, index))

    def head(self, tensors: Sequence[PlannedTensor], file_type: int, note: ImatrixNote | None) -> Head:
        """Returns the head that llama-quantize would write for ``tensors`` (src/llama-quant.cpp,
        tools/quantize/quantize.cpp). ``note`` describes the imatrix, or is None if the rung is made without an
        imatrix."""
        library = self._library
        table = library.gguf_init_empty()
        try:
            library.gguf_set_kv(table, self._table)
            library.gguf_set_val_u32(table, b"general.quantization_version", _QUANTIZATION_VERSION)
            library.gguf_set_val_u32(table, b"general.file_type", file_type)
            for key in _SPLIT_KEYS:
                library.gguf_remove_key(table, key)
            if note is not None:
                self._describe(table, note)
            for tensor in tensors:
                name = tensor.name.encode()
                library.gguf_add_tensor(table, library.ggml_get_tensor(self._shapes, name))
                library.gguf_set_tensor_type(table, name, self._ggml.types[tensor.target])
            data = ctypes.create_string_buffer(library.gguf_get_meta_size(table))
            library.gguf_get_meta_data(table, data)
            offsets = {
                tensor.name: len(data) + int(library.gguf_get_tensor_offset(table, index))
                for index, tensor in enumerate(tensors)
            }
        finally:
            library.gguf_free(table)
        last = tensors[-1]
        rows = last.elements // last.shape[0]
        last_bytes = padded(rows * self._ggml.row_bytes(last.target, last.shape[0]))
        return Head(data.raw, offsets, offsets[last.name] + last_bytes)

    def _describe(self, table: int, note: ImatrixNote) -> None:
        set_text, set_number = self._library.gguf_set_val_str, self._library.gguf_set_val_u32
        set_text(table, _IMATRIX_FILE.encode(), note.file[:_TEXT_BYTES])
        if note.text is not None:
            set_text(table, _IMATRIX_TEXT.encode(), note.text[:_TEXT_BYTES])
        set_number(table, _IMATRIX_ENTRIES.encode(), note.entries)
        if note.windows > 0:
            set_number(table, _IMATRIX_WINDOWS.encode(), note.windows)


def read_note(file: Gguf) -> ImatrixNote | None:
    """Returns what a rung's file says about its imatrix, or None if the rung was made without an imatrix."""

    name = file.metadata.get(_IMATRIX_FILE)
    if name is None:
        return None
    entries, windows = (int(file.metadata.get(key, 0)) for key in (_IMATRIX_ENTRIES, _IMATRIX_WINDOWS))
    return ImatrixNote(name, file.metadata.get(_IMATRIX_TEXT), entries, windows)


@contextmanager
def opened(ggml: Ggml, file: Path) -> Iterator[UnquantizedTable]:
    """Yields the metadata and the list of tensors of ``file``. Raises ``ValueError`` when ``file`` is not a GGUF
    file."""
    with ggml.opened(file) as (table, shapes):
        yield UnquantizedTable(ggml, table, shapes)


def padded(size: int) -> int:
    """Returns ``size`` (in bytes) rounded up to a multiple of the alignment. The next tensor begins there."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT
