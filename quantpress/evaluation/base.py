"""The base: the unquantized model's log-probabilities, from which every engine measures divergence.

There is one per model and protocol, whatever the formats: transformers in float32 makes it. Measured once it is kept
in a cache of limited size; what was not used for longest leaves first.

A user of a base gets hard links of its files. When the cache gives a base up, only its own names go, and the bytes stay
until the last user's folder is removed: nothing that is in use can vanish.
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
    """What decides a base: the model's sha (a commit, or the hash of a folder's files), protocol, engine, device."""

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
    """The unquantized model's figures by one engine, and the base: its log-probabilities by transformers."""

    evaluation: Evaluation
    logits: Path


@dataclass(frozen=True)
class BaseCache:
    """Bases under ``folder``, of at most ``capacity`` bytes together once nothing is being made."""

    folder: Path
    capacity: int

    def take(self, key: BaseKey, out: Path, measure: Callable[[Path], Evaluation]) -> Baseline:
        """The base of ``key``, linked into ``out``; ``measure`` writes the log-probabilities where it is told to and
        is called only if neither ``out`` nor the cache has them. Processes that ask at the same time wait for the
        first."""
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
        """Links a base's files into ``out``, the figures last: where they are, all is. Marks it as just used."""
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
        """Removes the bases that were not used for longest until the rest is within the capacity."""
        found = sorted((path for path in self.folder.glob("[0-9a-f]*") if path.is_dir()), key=_last_used, reverse=True)
        total = 0
        for base in found:
            total += sum(file.stat().st_size for file in base.iterdir())
            if total > self.capacity:
                # Under another name first: nobody finds half a base.
                leaving = base.with_name(f".{base.name}.leaving")
                base.rename(leaving)
                shutil.rmtree(leaving, ignore_errors=True)


def base_cache(settings: Settings) -> BaseCache:
    """The cache in the home folder, of the size that the settings allow."""
    return BaseCache(settings.home / "bases", settings.logits_cache)


def _last_used(base: Path) -> float:
    return base.stat().st_mtime
