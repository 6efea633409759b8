from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from quantpress.errors import QuantpressError
from quantpress.files import sha256_of
from quantpress.toolchain.wheel import PinnedWheel, check_hash, download, unpack


def wheel(path: Path, entries: dict[str, str], version: str = "1.0") -> PinnedWheel:
    """Writes a minimal wheel that pip accepts, ``path``/tools-VERSION-py3-none-any.whl."""
    info = f"tools-{version}.dist-info"
    metadata = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: tools\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    path.mkdir(exist_ok=True)
    file = path / f"tools-{version}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in (entries | metadata).items():
            archive.writestr(name, text)
    return PinnedWheel("tools", version, sha256_of(file))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip uses as its only index."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path / "index"


def test_the_pinned_wheel_is_downloaded(index: Path, tmp_path: Path) -> None:
    pinned = wheel(index, {"tree/a.txt": "a"})

    file = download(pinned, tmp_path / "got")

    assert file.name == "tools-1.0-py3-none-any.whl"
    assert sha256_of(file) == pinned.sha256


def test_a_wheel_of_another_hash_is_not_used(index: Path, tmp_path: Path) -> None:
    pinned = replace(wheel(index, {"tree/a.txt": "a"}), sha256="0" * 64)

    with pytest.raises(QuantpressError, match=r"pip could not download tools-1.0 \(ERROR: THESE PACKAGES DO NOT MATCH"):
        download(pinned, tmp_path / "got")

    assert list((tmp_path / "got").iterdir()) == []


def test_a_version_that_the_index_lacks_is_one_clear_line(index: Path, tmp_path: Path) -> None:
    pinned = replace(wheel(index, {}), version="2.0")

    with pytest.raises(
        QuantpressError, match=r"pip could not download tools-2\.0 .*: check the package index"
    ) as error:
        download(pinned, tmp_path / "got")

    assert "\n" not in str(error.value)


def test_our_own_check_does_not_rest_on_pip(tmp_path: Path) -> None:
    pinned = wheel(tmp_path, {})
    file = next(tmp_path.glob("*.whl"))
    check_hash(file, pinned)

    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(QuantpressError, match=f"not the pinned {pinned.sha256}"):
        check_hash(file, pinned)


def test_only_what_is_below_the_prefix_is_unpacked(tmp_path: Path) -> None:
    wheel(tmp_path, {"tree/sub/a.txt": "a", "other/b.txt": "b"})

    unpack(next(tmp_path.glob("*.whl")), tmp_path / "out", "tree/")

    assert [path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")] == ["sub/a.txt"]


@pytest.mark.parametrize("name", ["tree/../../escaped", "tree//escaped", "tree/a/../../../escaped", "tree/..\\escaped"])
def test_no_entry_leaves_the_folder(tmp_path: Path, name: str) -> None:
    wheel(tmp_path, {name: "x"})

    with pytest.raises(QuantpressError, match="unsafe entry"):
        unpack(next(tmp_path.glob("*.whl")), tmp_path / "out" / "deep", "tree/")

    assert list(tmp_path.rglob("*escaped*")) == []


def test_no_link_is_unpacked(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("tree/link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
        archive.writestr(link, "/etc/passwd")

    with pytest.raises(QuantpressError, match="unsafe entry 'tree/link'"):
        unpack(tmp_path / "x.whl", tmp_path / "out", "tree/")
