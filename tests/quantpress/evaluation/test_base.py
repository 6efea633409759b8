"""The cache of bases (a base is the unquantized model's figures and log-probabilities).

Each base is measured once and shared. The cache has a size limit, and never removes a base in use.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from quantpress.evaluation.base import BaseCache, BaseKey
from quantpress.record.measurement import Evaluation
from tests.support import samples


@dataclass
class Measurer:
    """Writes ``size`` bytes for each call, and lists its calls in ``asked``."""

    size: int = 1000
    asked: list[Path] = field(default_factory=list)

    def __call__(self, logits: Path) -> Evaluation:
        self.asked.append(logits)
        logits.write_bytes(bytes([len(self.asked)]) * self.size)
        return samples.evaluation(16.0, engine="transformers")


def key(sha: str, windows: int = 40) -> BaseKey:
    protocol = samples.PROTOCOL.model_copy(update={"windows": windows})
    return BaseKey(sha=sha, protocol=protocol, engine="transformers", device="cpu")


def names(cache: BaseCache) -> list[str]:
    return sorted(path.name for path in cache.folder.iterdir() if path.is_dir())


def test_a_base_is_measured_once_for_all_that_need_it(tmp_path: Path) -> None:
    cache, measure = BaseCache(tmp_path / "cache", 10_000), Measurer()

    first = cache.take(key("a"), tmp_path / "gguf", measure)
    second = cache.take(key("a"), tmp_path / "gptq", measure)

    assert len(measure.asked) == 1
    assert first.evaluation == second.evaluation == samples.evaluation(16.0, engine="transformers")
    assert first.logits.read_bytes() == second.logits.read_bytes() == b"\1" * 1000


def test_another_protocol_or_source_is_another_base(tmp_path: Path) -> None:
    cache, measure = BaseCache(tmp_path / "cache", 10_000), Measurer()
    for number, each in enumerate([key("a"), key("b"), key("a", windows=41)]):
        cache.take(each, tmp_path / str(number), measure)
    assert len(measure.asked) == 3


def test_what_was_not_used_for_longest_leaves_first(tmp_path: Path) -> None:
    cache, measure = BaseCache(tmp_path / "cache", 7000), Measurer()
    for age, sha in ((300, "old"), (200, "older use"), (100, "new")):
        cache.take(key(sha), tmp_path / sha, measure)
        then = tmp_path.stat().st_mtime - age
        os.utime(cache.folder / key(sha).name, (then, then))
    cache.take(key("old"), tmp_path / "again", measure)

    cache.take(key("large"), tmp_path / "large", Measurer(size=2000))

    assert names(cache) == sorted(key(sha).name for sha in ("old", "large", "new"))
    assert len(measure.asked) == 3


def test_what_the_cache_gives_up_stays_with_its_users(tmp_path: Path) -> None:
    cache, measure = BaseCache(tmp_path / "cache", 0), Measurer()

    used = cache.take(key("a"), tmp_path / "use", measure)

    assert names(cache) == []
    assert used.logits.read_bytes() == b"\1" * 1000
    assert cache.take(key("a"), tmp_path / "use", measure).evaluation == used.evaluation
    assert len(measure.asked) == 1


def test_a_measurement_that_fails_leaves_nothing(tmp_path: Path) -> None:
    cache = BaseCache(tmp_path / "cache", 10_000)

    def fail(logits: Path) -> Evaluation:
        logits.write_bytes(b"half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        cache.take(key("a"), tmp_path / "use", fail)
    assert names(cache) == []

    cache.take(key("a"), tmp_path / "use", Measurer())
    assert (tmp_path / "use" / "logits.bin").read_bytes() == b"\1" * 1000


def test_a_base_that_changed_on_the_disk_is_measured_again(tmp_path: Path) -> None:
    """Its figures and its header look sound, so nothing else would notice."""
    cache, measure = BaseCache(tmp_path / "cache", 10_000), Measurer()
    used = cache.take(key("a"), tmp_path / "use", measure)
    with used.logits.open("r+b") as stream:  # the cache and its user share the bytes
        stream.write(b"\0")

    assert cache.take(key("a"), tmp_path / "use", measure).logits.read_bytes() == b"\2" * 1000
    assert cache.take(key("a"), tmp_path / "other", measure).logits.read_bytes() == b"\2" * 1000
    assert len(measure.asked) == 2


def test_a_users_own_copy_that_changed_is_taken_from_the_cache_again(tmp_path: Path) -> None:
    cache, measure = BaseCache(tmp_path / "cache", 10_000), Measurer()
    used = cache.take(key("a"), tmp_path / "use", measure)
    used.logits.unlink()
    used.logits.write_bytes(b"\1" * 999)

    assert cache.take(key("a"), tmp_path / "use", measure).logits.read_bytes() == b"\1" * 1000
    assert len(measure.asked) == 1


def test_a_base_that_an_earlier_version_kept_without_its_hash_is_measured_again(tmp_path: Path) -> None:
    cache, measure = BaseCache(tmp_path / "cache", 10_000), Measurer()
    cache.take(key("a"), tmp_path / "use", measure)
    (cache.folder / key("a").name / "sums.json").unlink()

    assert cache.take(key("a"), tmp_path / "other", measure).logits.read_bytes() == b"\2" * 1000
