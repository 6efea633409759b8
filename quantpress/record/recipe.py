"""The recipe: every input that decides a variant's bytes, and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from quantpress.record.base import Record


class Calibration(Record):
    """The calibration text by name and SHA-256, and how much of it: ``samples`` windows of ``length`` tokens."""

    text: str
    sha256: str
    samples: int
    length: int


class Recipe(Record):
    """What a variant is made from. Two variants with equal recipes are the same variant."""

    format: str
    variant: str
    source: str
    source_sha: str
    quantizer: str
    parameters: dict[str, Any]
    calibration: Calibration

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 over the recipe's canonical JSON."""
        return fingerprint_of(self.model_dump(mode="json"))

    @property
    def preparation_fingerprint(self) -> str:
        """Hex SHA-256 of what all variants of a format share: the recipe without variant and parameters."""
        return fingerprint_of(self.model_dump(mode="json", exclude={"variant", "parameters"}))


def canonical_json(value: Any) -> str:
    """Returns JSON with sorted keys, no white space, no escapes of non-ASCII, no NaN: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint_of(value: Any) -> str:
    """Returns the hex SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
