"""The base: the unquantized model's log-probabilities, from which every engine measures divergence.

There is one base per model and protocol, for all formats. Transformers makes it in float32. It is measured once and
kept in a cache of limited size. The cache removes the least recently used base first.

A user of a base gets hard links to its files. When the cache removes a base, it removes only its own names. The bytes
stay until the last user's folder is removed, so nothing that is in use can vanish.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quantpress.files import write_text
from quantpress.record.base import Record
from quantpress.record.measurement import Evaluation, Protocol
from quantpress.record.recipe import fingerprint_of
from quantpress.settings import Settings
from quantpress.toolchain.cache import make_once

_LOGITS, _EVALUATION, _KEY = "logits.bin", "evaluation.json", "key.json"


class BaseKey(Record):
    """What a base depends on: the model's sha (a commit, or the hash of a folder's files), protocol, engine, device."""

    sha: str
    protocol: Protocol
    engine: str
    device: Literal["cpu", "cuda"]

    @property
    def name(self) -> str:
        """The name of the base's folder in the cache."""
        return fingerprint_of(self.model_dump(mode="json"))[:24]


@dataclass(frozen=True)
class Baseline:
    """What one engine measured of the unquantized model, and the base: the model's log-probabilities, made by
    transformers."""

    evaluation: Evaluation
    logits: Path


@dataclass(frozen=True)
class BaseCache:
    """Bases under ``folder``. While none is being made, they take at most ``capacity`` bytes together."""

    folder: Path
    capacity: int

    def take(self, key: BaseKey, out: Path, measure: Callable[[Path], Evaluation]) -> Baseline:
        """Returns the base of ``key``, linked into ``out``.

        ``measure`` writes the log-probabilities to the path that it is given. It is called only if neither ``out`` nor
        the cache has them. Processes that ask at the same time wait for the first.
        """
        if not (out / _EVALUATION).exists():
            kept = self.folder / key.name

            def make(part: Path) -> None:
                evaluation = measure(part / _LOGITS)
                write_text(part / _KEY, key.model_dump_json(indent=1))
                write_text(part / _EVALUATION, evaluation.model_dump_json(indent=1))

            while not self._link(kept, out):
                make_once(kept, make)
            self._make_room()
        return Baseline(Evaluation.model_validate_json((out / _EVALUATION).read_bytes()), out / _LOGITS)

    def _link(self, kept: Path, out: Path) -> bool:
        """Links a base's files into ``out`` and marks the base as just used; False if the cache does not have it.

        The figures are linked last: if they are there, everything is.
        """
        out.mkdir(parents=True, exist_ok=True)
        try:
            for name in (_LOGITS, _EVALUATION):
                (out / name).unlink(missing_ok=True)
                os.link(kept / name, out / name)
            os.utime(kept)
        except FileNotFoundError:
            return False
        return True

    def _make_room(self) -> None:
        """Removes the least recently used bases until the rest is within the capacity."""
        found = sorted((path for path in self.folder.glob("[0-9a-f]*") if path.is_dir()), key=_last_used, reverse=True)
        total = 0
        for base in found:
            total += sum(file.stat().st_size for file in base.iterdir())
            if total > self.capacity:
                # It is renamed first, so that nobody finds half a base.
                leaving = base.with_name(f".{base.name}.leaving")
                base.rename(leaving)
                shutil.rmtree(leaving, ignore_errors=True)


def base_cache(settings: Settings) -> BaseCache:
    """Returns the cache in the home folder, with the size that the settings allow."""
    return BaseCache(settings.home / "bases", settings.logits_cache)


def _last_used(base: Path) -> float:
    return base.stat().st_mtime
