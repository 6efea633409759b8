"""The recipe of a variant: every input that decides the variant's bytes. The fingerprint is a hash of the recipe."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from quantpress.record.base import Record
from quantpress.record.bounds import Name, PathPart, Repo, Sha256, Size, Values


class Calibration(Record):
    """A calibration text, and how much of it is used.

    ``text`` is its name, and ``sha256`` is the hash of its bytes. The quantizer uses ``samples`` windows of ``length``
    tokens.
    """

    text: Name
    sha256: Sha256
    samples: Size
    length: Size


class Recipe(Record):
    """The inputs of a variant. Two variants with equal recipes are the same variant."""

    format: PathPart
    variant: Name
    source: Repo
    source_sha: PathPart
    quantizer: Name
    parameters: Values
    calibration: Calibration

    @property
    def fingerprint(self) -> str:
        """The hex SHA-256 of the recipe's canonical JSON."""
        return fingerprint_of(self.model_dump(mode="json"))

    @property
    def preparation_fingerprint(self) -> str:
        """The hex SHA-256 of the recipe without ``variant`` and ``parameters``. All variants of a format share this
        part."""
        return fingerprint_of(self.model_dump(mode="json", exclude={"variant", "parameters"}))


def canonical_json(value: Any) -> str:
    """Returns JSON with sorted keys and no white space, so that equal values give equal text.

    Characters outside ASCII are not escaped. Raises ValueError for NaN and infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint_of(value: Any) -> str:
    """Returns the hex SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
