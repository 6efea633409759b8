"""Finds out which safetensors files of a checkpoint hold the model's weights.

A repository can hold more: the same weights for its maker's own library (``consolidated.safetensors``), adapters, or
files of older versions. transformers reads one file, or the files that one index names. Only these files are fetched
and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from quantpress.errors import Refused
from quantpress.foreign_json import Foreign, parse_object, read_object, validated
from quantpress.source.config import CONFIG_FILE
from quantpress.text import one_line

#: The names that transformers looks for, in this order (``SAFE_WEIGHTS_NAME`` and ``SAFE_WEIGHTS_INDEX_NAME`` of
#: utils/__init__.py, ``_get_resolved_checkpoint_files`` of modeling_utils.py).
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
#: A config.json can name the file, or the index, that transformers reads instead (same function).
_NAMED_BY = "transformers_weights"
_ENDING, _INDEX_ENDING = ".safetensors", ".safetensors.index.json"
#: The largest size of an index, in bytes. DeepSeek-V3's, with 91,991 tensors, has 8.9 MB.
LARGEST_INDEX = 100_000_000


class _Index(Foreign):
    """The typed part of an index. ``weight_map`` maps a tensor to the file that holds it."""

    weight_map: dict[str, str] = Field(min_length=1)


@dataclass(frozen=True)
class WeightFiles:
    """The names of the files that transformers reads, sorted, and of the index that names them. ``index`` is None if
    there is one file that needs none."""

    files: tuple[str, ...]
    index: str | None = None

    def leaves_out(self, name: str) -> bool:
        """Whether a file of the checkpoint holds weights or names files of weights, and is not read."""
        return name.endswith((_ENDING, _INDEX_ENDING)) and name not in self.files and name != self.index


def find_weight_files(
    names: Collection[str], config: Mapping[str, Any], read_index: Callable[[str], bytes]
) -> WeightFiles | None:
    """Returns the files with the weights, or None if transformers would find none.

    ``names`` are the names of all files of the checkpoint, and ``config`` is its config.json. ``read_index`` returns
    the content of an index. Raises :class:`Refused` if the index is none, or names a file that is missing.
    """
    named = config.get(_NAMED_BY)
    wanted = [named] if isinstance(named, str) else [_SINGLE, _INDEX]
    for name in wanted:
        if name in names and name.endswith(_INDEX_ENDING):
            return WeightFiles(_files_of(name, read_index(name), names), name)
        if name in names and name.endswith(_ENDING):
            return WeightFiles((name,))
    return None


def require_weight_files(
    names: Collection[str], config: Mapping[str, Any], read_index: Callable[[str], bytes]
) -> WeightFiles:
    """Returns the same as :func:`find_weight_files`. Raises :class:`Refused` if transformers would find no weights."""
    found = find_weight_files(names, config, read_index)
    if found is not None:
        return found
    if any(name.endswith(_ENDING) for name in names):
        raise Refused(
            f"it has neither {_SINGLE} nor {_INDEX}, and transformers reads no other weights: "
            "ask upstream for the index"
        )
    raise Refused("no safetensors: pickle checkpoints are refused; save it as safetensors, or ask upstream to")


def weight_paths(folder: Path) -> list[Path]:
    """Returns the paths of the files with the weights of a checkpoint folder, sorted.

    If transformers would find none, returns all safetensors files. ExLlamaV2 names its file ``output.safetensors``.
    Raises :class:`Refused` if the index is none, or names a file that is missing.
    """
    found = weights_in(folder)
    return [folder / name for name in found.files] if found else sorted(folder.glob(f"*{_ENDING}"))


def weights_in(folder: Path) -> WeightFiles | None:
    """Returns the same as :func:`find_weight_files`, for a checkpoint folder."""
    return weights_among([path.name for path in folder.iterdir() if path.is_file()], folder)


def weights_among(names: Collection[str], folder: Path) -> WeightFiles | None:
    """Returns the same as :func:`find_weight_files`, for a checkpoint with files ``names``. Its config.json and its
    index are in ``folder``."""
    return find_weight_files(names, _config(folder), lambda name: _index_in(folder, name))


def _index_in(folder: Path, name: str) -> bytes:
    if (folder / name).stat().st_size > LARGEST_INDEX:
        raise Refused(f"its {name} is larger than {LARGEST_INDEX} bytes")
    return (folder / name).read_bytes()


def _config(folder: Path) -> Mapping[str, Any]:
    """Returns the content of config.json, or an empty dict if it is missing or no JSON object."""
    try:
        return read_object(folder / CONFIG_FILE)
    except (OSError, Refused):
        return {}


def _files_of(index: str, content: bytes, names: Collection[str]) -> tuple[str, ...]:
    try:
        placed = validated(_Index, parse_object(content, index), index).weight_map
    except Refused:
        raise Refused(f"{index} is no index of safetensors files: ask upstream") from None
    for tensor, file in placed.items():
        if file not in names or not file.endswith(_ENDING):
            raise Refused(
                f"{index} says that {one_line(file)} holds tensor {one_line(tensor)}, but {one_line(file)} is "
                "missing: ask upstream"
            )
    return tuple(sorted(set(placed.values())))
