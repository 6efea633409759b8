"""Counts what a GGUF file really contains: the weights of each storage type, and the bytes of all tensors."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from quantpress.source.gguf import read_gguf


@dataclass(frozen=True)
class StorageTypes:
    """``weights`` maps a tensor type (``Q4_K``, ``F32``, …) to the number of elements of this type, most frequent type
    first. ``data_bytes`` is the size of all tensors' data, without metadata and padding."""

    weights: dict[str, int]
    data_bytes: int

    @property
    def total_weights(self) -> int:
        return sum(self.weights.values())

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.data_bytes / self.total_weights


def storage_types(file: Path) -> StorageTypes:
    """Reads the list of tensors of a GGUF file. Raises ``ValueError`` when ``file`` is not a GGUF file."""
    weights: Counter[str] = Counter()
    data_bytes = 0
    for tensor in read_gguf(file).tensors:
        weights[tensor.type] += tensor.elements
        data_bytes += tensor.size
    return StorageTypes(dict(weights.most_common()), data_bytes)
