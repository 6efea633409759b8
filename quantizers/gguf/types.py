"""Counts what is really in a GGUF file: weights per storage type, and bytes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from quantpress.source.gguf import read_gguf


@dataclass(frozen=True)
class StorageTypes:
    """``weights`` counts elements per tensor type (``Q4_K``, ``F32``, …), most frequent first. ``data_bytes`` is the
    size of all tensors' data, without metadata and padding."""

    weights: dict[str, int]
    data_bytes: int

    @property
    def total_weights(self) -> int:
        return sum(self.weights.values())

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.data_bytes / self.total_weights


def storage_types(file: Path) -> StorageTypes:
    """Reads a GGUF file's tensor table. Raises ``ValueError`` when it is not a GGUF file."""
    weights: Counter[str] = Counter()
    data_bytes = 0
    for tensor in read_gguf(file).tensors:
        weights[tensor.type] += tensor.elements
        data_bytes += tensor.size
    return StorageTypes(dict(weights.most_common()), data_bytes)
