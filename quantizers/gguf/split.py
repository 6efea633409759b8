"""Splits GGUF files above a size limit into parts. If llama.cpp is given the name of the first part, it loads all
parts."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from quantpress.errors import QuantpressError, Refused
from quantpress.files import fsync_folder
from quantpress.source.gguf import read_gguf
from quantpress.toolchain.llama_cpp import LlamaCpp
from quantpress.toolchain.run import run_tool

#: llama-gguf-split takes its limit in millions of bytes (tools/gguf-split/gguf-split.cpp, ``split_str_to_n_bytes``).
_UNIT = 1_000_000
#: The most bytes by which a part's metadata can exceed the whole file's metadata. A part adds three numbers of the
#: split, and padding.
_SPLIT_METADATA = 1000
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


def split_above(tools: LlamaCpp, file: Path, limit: int | None) -> list[Path]:
    """If ``file`` has more than ``limit`` bytes, replaces it with parts of at most ``limit`` bytes.

    llama.cpp finds the parts by their names, ``{Name}-00001-of-0000N.gguf``. The first part holds the metadata. Returns
    the paths of all parts in order, or only ``file`` if it was not split. For a while, the whole file and its parts are
    both on the disk. Raises :class:`Refused` when the largest tensor and the metadata together do not fit in one part.
    """
    if limit is None or file.stat().st_size <= limit:
        return [file]
    millions = (limit - _head_bytes(file) - _SPLIT_METADATA) // _UNIT
    largest = _largest_tensor(file)
    if largest > millions * _UNIT:
        raise Refused(
            f"{file.name} cannot be split into parts of {limit / 1e9:.3f} GB: its largest tensor has "
            f"{largest / 1e9:.3f} GB, beside which its metadata must fit; set QUANTPRESS_SPLIT_ABOVE higher"
        )
    with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
        command: list[str | Path] = [tools.gguf_split, "--split", "--split-max-size", f"{millions}M", file]
        run_tool([*command, Path(scratch) / file.stem], file.parent)
        parts = sorted(Path(scratch).iterdir())
        _check_complete(file, parts)
        for part in parts:
            with part.open("rb") as stream:
                os.fsync(stream.fileno())
        moved = [part.rename(file.parent / part.name) for part in parts]
    file.unlink()
    fsync_folder(file.parent)
    return moved


def _check_complete(file: Path, parts: list[Path]) -> None:
    """Raises :class:`QuantpressError` if a part is missing, or if the parts together do not hold all tensors of
    ``file``.

    This check is needed because llama-gguf-split exits with code 0 on some failures.
    """
    numbers = [tuple(map(int, found.groups())) if (found := _PART.search(part.name)) else None for part in parts]
    if numbers != [(number, len(parts)) for number in range(1, len(parts) + 1)] or len(parts) < 2:
        raise QuantpressError(f"llama-gguf-split made {[part.name for part in parts]} of {file.name}")
    wanted = {(tensor.name, tensor.size) for tensor in read_gguf(file).tensors}
    if {(tensor.name, tensor.size) for part in parts for tensor in read_gguf(part).tensors} != wanted:
        raise QuantpressError(f"llama-gguf-split lost tensors of {file.name}")


def _head_bytes(file: Path) -> int:
    return read_gguf(file).data_begin


def _largest_tensor(file: Path) -> int:
    return max(tensor.size for tensor in read_gguf(file).tensors)
