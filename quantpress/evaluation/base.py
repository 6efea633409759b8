"""The base: the unquantized model's log-probabilities, from which every engine measures divergence.

Each model has one base per protocol and device, for all formats. Transformers makes the base, in float32 if the memory
suffices. A base is measured once and kept in a cache of limited size. The cache removes the least recently used base
first.

The code that uses a base gets hard links to the base's files, in its own folder. When the cache removes a base, it
removes only the cache's own links. The bytes stay until the last folder with a link is removed, so a file that is in
use cannot vanish.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quantpress.files import changed, sums_of, write_text
from quantpress.record.base import Record
from quantpress.record.measurement import Evaluation, Protocol
from quantpress.record.recipe import fingerprint_of
from quantpress.settings import Settings
from quantpress.toolchain.cache import make_once

_LOGITS, _SUMS, _EVALUATION, _KEY = "logits.bin", "sums.json", "evaluation.json", "key.json"


class BaseKey(Record):
    """What a base depends on. ``sha`` identifies the model: it is a commit, or the hash of a folder's files."""

    sha: str
    protocol: Protocol
    engine: str
    device: Literal["cpu", "cuda"]

    @property
    def name(self) -> str:
        """The name of the folder in the cache that holds the base."""
        return fingerprint_of(self.model_dump(mode="json"))[:24]


@dataclass(frozen=True)
class Baseline:
    """The figures that one engine measured for the unquantized model, and the base.

    ``logits`` is the file of the base, which transformers made.
    """

    evaluation: Evaluation
    logits: Path


@dataclass(frozen=True)
class BaseCache:
    """The bases under ``folder``. While no base is being made, all bases together take at most ``capacity`` bytes."""

    folder: Path
    capacity: int

    def take(self, key: BaseKey, out: Path, measure: Callable[[Path], Evaluation]) -> Baseline:
        """Returns the base of ``key``, with its files linked into ``out``.

        If neither ``out`` nor the cache has the base, ``measure`` is called with a path, and writes the
        log-probabilities to this path. If several processes ask at the same time, one measures and the others wait. A
        base whose log-probabilities have changed on the disk since they were measured is removed and measured again.
        """
        if not _is_whole(out):
            kept = self.folder / key.name

            def make(part: Path) -> None:
                evaluation = measure(part / _LOGITS)
                write_text(part / _KEY, key.model_dump_json(indent=1))
                write_text(part / _SUMS, json.dumps(sums_of(part, [_LOGITS])))
                write_text(part / _EVALUATION, evaluation.model_dump_json(indent=1))

            if kept.exists() and not _is_whole(kept):
                _remove(kept)
            while not self._link(kept, out):
                make_once(kept, make)
            self._make_room()
        return Baseline(Evaluation.model_validate_json((out / _EVALUATION).read_bytes()), out / _LOGITS)

    def _link(self, kept: Path, out: Path) -> bool:
        """Links a base's files into ``out`` and marks the base as just used. Returns False if the cache lacks the base.

        The file of figures is linked last. So if ``out`` has this file, ``out`` has the whole base.
        """
        out.mkdir(parents=True, exist_ok=True)
        try:
            for name in (_LOGITS, _SUMS, _EVALUATION):
                (out / name).unlink(missing_ok=True)
                os.link(kept / name, out / name)
            os.utime(kept)
        except FileNotFoundError:
            return False
        return True

    def _make_room(self) -> None:
        """Removes the least recently used bases, until the remaining bases fit the capacity."""
        found = sorted((path for path in self.folder.glob("[0-9a-f]*") if path.is_dir()), key=_last_used, reverse=True)
        total = 0
        for base in found:
            total += sum(file.stat().st_size for file in base.iterdir())
            if total > self.capacity:
                _remove(base)


def _remove(base: Path) -> None:
    """Removes a base from the cache.

    The base is renamed first, so that no process finds a base with only some of its files.
    """
    leaving = base.with_name(f".{base.name}.leaving")
    with suppress(FileNotFoundError):  # another process removes it too
        base.rename(leaving)
    shutil.rmtree(leaving, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    """Whether the folder has a base, with the log-probabilities that were measured."""
    try:
        sums = json.loads((folder / _SUMS).read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return (folder / _EVALUATION).exists() and not changed(folder, sums)


def base_cache(settings: Settings) -> BaseCache:
    """Returns the cache of bases in the home folder, with the capacity that the settings allow."""
    return BaseCache(settings.home / "bases", settings.logits_cache)


def _last_used(base: Path) -> float:
    return base.stat().st_mtime
