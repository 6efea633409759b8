"""Calls ggml's own quantization in this process, through the library ``libggml-base`` that lies beside llama-quantize.

Each call releases Python's interpreter lock, so several threads can call ggml at the same time. If an argument is
wrong, ggml aborts and so ends the process. So callers must check types and widths first.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantpress.toolchain.llama_cpp import LlamaCpp

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NAMES = ("libggml-base.so", "libggml-base.so.0", "libggml-base.dylib")
_POINTER, _INT, _LONG, _SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_size_t
_TEXT, _U32, _BOOL = ctypes.c_char_p, ctypes.c_uint32, ctypes.c_bool


class _ReadOptions(ctypes.Structure):
    """``struct gguf_init_params`` in gguf.h."""

    _fields_ = (("no_alloc", _BOOL), ("ctx", ctypes.POINTER(_POINTER)))


#: Maps a function's name to the type of its result and the types of its arguments, as declared in ggml.h and gguf.h.
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "ggml_type_name": (_TEXT, [_INT]),
    "ggml_blck_size": (_LONG, [_INT]),
    "ggml_row_size": (_SIZE, [_INT, _LONG]),
    "ggml_validate_row_data": (_BOOL, [_INT, _POINTER, _SIZE]),
    "ggml_fp16_to_fp32_row": (None, [_POINTER, _POINTER, _LONG]),
    "ggml_bf16_to_fp32_row": (None, [_POINTER, _POINTER, _LONG]),
    "ggml_quantize_chunk": (_SIZE, [_INT, _POINTER, _POINTER, _LONG, _LONG, _LONG, _POINTER]),
    "ggml_get_tensor": (_POINTER, [_POINTER, _TEXT]),
    "ggml_free": (None, [_POINTER]),
    "gguf_init_from_file": (_POINTER, [_TEXT, _ReadOptions]),
    "gguf_init_empty": (_POINTER, []),
    "gguf_free": (None, [_POINTER]),
    "gguf_set_kv": (None, [_POINTER, _POINTER]),
    "gguf_set_val_u32": (None, [_POINTER, _TEXT, _U32]),
    "gguf_set_val_str": (None, [_POINTER, _TEXT, _TEXT]),
    "gguf_remove_key": (_LONG, [_POINTER, _TEXT]),
    "gguf_find_key": (_LONG, [_POINTER, _TEXT]),
    "gguf_add_tensor": (None, [_POINTER, _POINTER]),
    "gguf_set_tensor_type": (None, [_POINTER, _TEXT, _INT]),
    "gguf_get_data_offset": (_SIZE, [_POINTER]),
    "gguf_find_tensor": (_LONG, [_POINTER, _TEXT]),
    "gguf_get_tensor_offset": (_SIZE, [_POINTER, _LONG]),
    "gguf_get_meta_size": (_SIZE, [_POINTER]),
    "gguf_get_meta_data": (None, [_POINTER, _POINTER]),
}


class Ggml:
    """The functions of one ``libggml-base``. Tensor types are ggml's names in capitals."""

    def __init__(self, file: Path) -> None:
        """Raises ``OSError`` when ``file`` cannot be loaded, and ``AttributeError`` when ``file`` lacks a function."""
        self.library = ctypes.CDLL(str(file))
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(self.library, name)
            function.restype, function.argtypes = result, arguments

    @cached_property
    def types(self) -> dict[str, int]:
        """A dict from a type's name to ggml's number of the type. It holds the types that both the library and the gguf
        package know."""
        from gguf import GGMLQuantizationType

        named = {kind: self.library.ggml_type_name(kind.value) for kind in GGMLQuantizationType}
        return {kind.name: kind.value for kind, name in named.items() if name and name.decode().upper() == kind.name}

    def block(self, type_name: str) -> int:
        """Returns the number of elements in a block. A row's width must be a multiple of this number."""
        return int(self.library.ggml_blck_size(self.types[type_name]))

    def row_bytes(self, type_name: str, width: int) -> int:
        return int(self.library.ggml_row_size(self.types[type_name], width))

    def valid(self, type_name: str, data: NDArray[np.uint8]) -> bool:
        """Whether ``data`` holds only finite values. ``data`` must be whole rows. llama-quantize does the same
        check."""
        return bool(self.library.ggml_validate_row_data(self.types[type_name], data.ctypes.data, data.nbytes))

    def widen(self, type_name: str, data: NDArray[np.uint8], out: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns ``data`` (elements of ``F32``, ``F16`` or ``BF16``) as float32. If ``data`` is not ``F32``, the
        float32 values are written to the beginning of ``out``."""
        import numpy as np

        if type_name == "F32":
            return data.view(np.float32)
        convert = {"F16": self.library.ggml_fp16_to_fp32_row, "BF16": self.library.ggml_bf16_to_fp32_row}[type_name]
        elements = data.nbytes // 2
        convert(data.ctypes.data, out.ctypes.data, elements)
        return out[:elements]

    def quantize(
        self,
        type_name: str,
        values: NDArray[np.float32],
        width: int,
        weights: NDArray[np.float32] | None,
        out: NDArray[np.uint8],
    ) -> NDArray[np.uint8]:
        """Quantizes whole rows of ``width`` values into the beginning of ``out``, and returns that part of ``out``.

        ``weights`` has one value per column, which says how much this input of the matrix matters. For some types, ggml
        searches in a grid. ggml makes the grid at its first use and keeps it (some MB) until the process ends.
        """
        written = self.library.ggml_quantize_chunk(
            self.types[type_name],
            values.ctypes.data,
            out.ctypes.data,
            0,
            values.size // width,
            width,
            None if weights is None else weights.ctypes.data,
        )
        return out[:written]

    @contextmanager
    def opened(self, file: Path) -> Iterator[tuple[int, int]]:
        """Yields two handles: one of a GGUF file's metadata and list of tensors, and one of the tensors' shapes. Reads
        no tensor data. Raises ``ValueError`` if ggml cannot read the file."""
        shapes = _POINTER()
        table = self.library.gguf_init_from_file(str(file).encode(), _ReadOptions(True, ctypes.pointer(shapes)))
        if not table or not shapes.value:
            raise ValueError(f"{file} is no GGUF file that this llama.cpp reads")
        try:
            yield table, shapes.value
        finally:
            self.library.gguf_free(table)
            self.library.ggml_free(shapes)


def library_of(tools: LlamaCpp) -> Path | None:
    """Returns the path of ``libggml-base``, which lies beside llama-quantize or in ``lib`` next to llama-quantize's
    folder. Returns None if neither folder holds the library, because it is then linked into llama-quantize."""
    programs = tools.quantize.resolve().parent
    folders = (programs, programs.parent / "lib")
    return next((path for folder in folders for name in _NAMES if (path := folder / name).is_file()), None)
