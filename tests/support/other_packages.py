"""Packages that pip did not install, but that Python finds like installed ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from quantizers import third_party


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    third_party.entry_points.cache_clear()
    yield tmp_path
    third_party.entry_points.cache_clear()


def install(site: Path, package: str, point: str, source: str | None = None) -> None:
    """Writes what pip installs for a package that declares one entry point: ``NAME = MODULE:OBJECT``."""
    info = site / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[quantpress.quantizers]\n{point}\n")
    if source is not None:
        (site / f"{package}.py").write_text(source)
