"""Environments are made by the real pip, of tiny wheels in a folder. Nothing is fetched."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from quantpress.files import sha256_of
from quantpress.toolchain import environment
from quantpress.toolchain.environment import Contents, build_environment, is_built, site_packages


def wheel(folder: Path, name: str, version: str = "1.0", requires: str = "") -> str:
    """Writes a wheel with one empty module. Returns the wheel's pin."""
    file, info = folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    entries = {
        f"{name}.py": "",
        f"{info}/METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    entries[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*entries, f"{info}/RECORD"])
    with zipfile.ZipFile(file, "w") as archive:
        for path, content in entries.items():
            archive.writestr(path, content)
    return f"{name}=={version} \\\n    --hash=sha256:{sha256_of(file)}\n"


class Index:
    """A folder of wheels that pip installs from, and the environments that it makes."""

    def __init__(self, folder: Path) -> None:
        self.wheels, self.cache, self.pins = folder / "wheels", folder / "cache", folder / "pins.txt"
        self.wheels.mkdir()

    def build(self, pins: str, incomplete: tuple[str, ...] = ()) -> set[str]:
        """Makes an environment. Returns the names of the distributions that are in it."""
        self.pins.write_text(pins)
        # No configuration of the machine: no index, no other folder, no constraint.
        variables = {"PATH": os.environ["PATH"], "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"}
        variables |= {"PIP_FIND_LINKS": str(self.wheels), "PIP_NO_CACHE_DIR": "1"}
        made = build_environment("tiny", Contents(self.pins, incomplete=incomplete), self.cache, variables)
        assert is_built(made)
        found = {path.name.removesuffix(".dist-info") for path in site_packages(made).glob("*.dist-info")}
        return {name for name in found if not name.startswith(("pip-", "setuptools-"))}

    def nothing_is_built(self) -> bool:
        return not any(is_built(folder) for folder in (self.cache / "environments").glob("tiny-*"))


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(tmp_path)


@pytest.mark.slow
def test_a_file_with_another_hash_is_not_installed(index: Index, capfd: pytest.CaptureFixture[str]) -> None:
    pins = wheel(index.wheels, "alpha")
    assert wheel(index.wheels, "alpha", requires="beta") != pins
    with pytest.raises(subprocess.CalledProcessError):
        index.build(pins)
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in capfd.readouterr().err
    assert index.nothing_is_built()


@pytest.mark.slow
def test_a_requirement_that_is_not_pinned_is_named(index: Index, capfd: pytest.CaptureFixture[str]) -> None:
    pins = wheel(index.wheels, "alpha", requires="beta>=2")
    wheel(index.wheels, "beta", "2.0")
    with pytest.raises(subprocess.CalledProcessError):
        index.build(pins)
    assert "alpha 1.0 requires beta, which is not installed." in capfd.readouterr().out
    assert index.nothing_is_built()
    assert index.build(pins, incomplete=("alpha",)) == {"alpha-1.0"}


@pytest.mark.slow
def test_torch_for_cpus_is_taken_where_it_is_and_else_the_one_for_cuda_with_its_libraries(
    index: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cpu, cuda = tmp_path / "cpu.txt", tmp_path / "cuda.txt"
    monkeypatch.setattr(environment, "_CPU_TORCH", cpu)
    monkeypatch.setattr(environment, "_CUDA_PINS", cuda)
    pins = wheel(index.wheels, "torch", "1.0", requires='nvidia-x==1.0; platform_system == "Linux"')
    cuda.write_text(wheel(index.wheels, "nvidia_x"))
    cpu.write_text(wheel(index.wheels, "torch", "1.0+cpu"))

    assert index.build(pins) == {"torch-1.0+cpu"}
    (index.wheels / "torch-1.0+cpu-py3-none-any.whl").unlink()
    assert index.build(pins + "# a new key\n") == {"torch-1.0", "nvidia_x-1.0"}
