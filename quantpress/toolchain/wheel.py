"""Handles wheels that are pinned by hash.

pip downloads a wheel and checks its hash. This module checks the hash again, and unpacks the wheel only into the given
folder.
"""

from __future__ import annotations

import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from quantpress.errors import QuantpressError
from quantpress.files import sha256_of
from quantpress.machine.credentials import environment_of_downloads


@dataclass(frozen=True)
class PinnedWheel:
    """A wheel in the package index: its distribution, its exact version, and the hex SHA-256 of its file."""

    name: str
    version: str
    sha256: str

    @property
    def label(self) -> str:
        return f"{self.name}-{self.version}"

    @property
    def provenance(self) -> str:
        """What a reader needs to find the same file: name, version and SHA-256."""
        return f"{self.name} {self.version}, SHA-256 {self.sha256}"


def download(wheel: PinnedWheel, folder: Path) -> Path:
    """Downloads a wheel, without its dependencies, into ``folder``. Returns the wheel's file.

    pip uses the index that it is configured for. Raises :class:`QuantpressError` if pip fails, or if the file's SHA-256
    is not the pinned one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pinned = f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}"
    _pip(["download", "--dest", str(folder)], [pinned], wheel.label)
    files = list(folder.glob("*.whl"))
    if len(files) != 1:
        raise QuantpressError(f"pip left {len(files)} wheels in {folder} instead of {wheel.label}")
    check_hash(files[0], wheel)
    return files[0]


def install_pinned(requirements: Sequence[str], folder: Path) -> None:
    """Installs wheels, without their dependencies, into ``folder``. Python can import them from there.

    ``requirements`` are lines in the format of pip. Each line contains the hashes of the wheels that are allowed.
    Raises :class:`QuantpressError` if pip fails.
    """
    if requirements:
        names = ", ".join(line.split()[0] for line in requirements)
        _pip(["install", "--target", str(folder)], requirements, names)


def _pip(command: list[str], requirements: Sequence[str], what: str) -> None:
    """Runs a pip command on these wheels and no others."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "requirements.txt"
        file.write_text("".join(f"{line}\n" for line in requirements))
        always = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        done = subprocess.run(
            [sys.executable, "-m", "pip", *command, *always, "--requirement", str(file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment_of_downloads(),
            check=False,
        )
    if done.returncode != 0:
        said = done.stdout.decode(errors="replace").strip().splitlines() or ["nothing"]
        reason = next((line for line in said if line.startswith("ERROR")), said[-1])
        raise QuantpressError(f"pip could not {command[0]} {what} ({reason.strip()}): check the package index")


def check_hash(file: Path, wheel: PinnedWheel) -> None:
    """Raises :class:`QuantpressError` if the SHA-256 of ``file`` is not the pinned one."""
    found = sha256_of(file)
    if found != wheel.sha256:
        raise QuantpressError(
            f"{file.name} has SHA-256 {found}, not the pinned {wheel.sha256}: it is not the file that was "
            "reviewed, and is not used"
        )


def unpack(file: Path, folder: Path, prefix: str = "") -> None:
    """Unpacks the entries of the wheel ``file`` below ``prefix`` into ``folder``. ``prefix`` is the name of a folder,
    ending in ``/``.

    Raises :class:`QuantpressError` if an entry would be written outside ``folder`` or is a link.
    """
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if entry.is_dir() or not entry.filename.startswith(prefix):
                continue
            name = PurePosixPath(entry.filename[len(prefix) :])
            linked = stat.S_ISLNK(entry.external_attr >> 16)
            if linked or name.is_absolute() or ".." in name.parts or "\\" in str(name):
                raise QuantpressError(f"{file.name} holds an unsafe entry {entry.filename!r}: it is not unpacked")
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(entry))
