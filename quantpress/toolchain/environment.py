"""Builds Python environments in the user's cache. Each has a key: a hash of everything that decides what is in it.

Installing what quantpress needs takes minutes. A second checkout with the same pinned versions must not install it
again. So this module builds the environment once, in the cache folder. The ``.venv`` of a checkout is only a thin
environment: its path file (``.pth``) refers to the cached environment. ``make setup`` runs this module as
``python3 -m quantpress.toolchain.environment`` before anything is installed. So this module uses only the standard
library.

Every file that pip installs is pinned by version and SHA-256, sources and the tools that build them too. pip refuses
all other files.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

#: This file is written last. If an environment lacks it, the environment is unfinished and is built again.
_COMPLETE = "complete"
#: PyTorch's build for CPUs, and what its build for CUDA needs besides. Which of the two builds there is depends on the
#: index that pip is configured for.
_CPU_TORCH = Path(__file__).with_name("cpu_torch.txt")
_CUDA_PINS = Path(__file__).with_name("cuda_libraries.txt")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PIN = re.compile(rf"(?P<name>{_NAME.pattern})==(?P<version>[^\s;\\]+)")


@dataclass(frozen=True)
class Contents:
    """What an environment holds.

    ``pins`` is a requirement file that names every distribution, with its exact version and the SHA-256 hashes of its
    files. ``from_source`` are those that are built here, because the index has no wheel for them, or only a wrong one.
    All others are installed as wheels. ``incomplete`` are those whose requirements are not all installed, on purpose.
    """

    pins: Path
    from_source: tuple[str, ...] = ()
    incomplete: tuple[str, ...] = ()

    def key(self) -> str:
        """Returns a hash of everything that decides what the environment holds."""
        parts = [platform.python_version(), platform.machine(), sys.platform, *self.from_source]
        parts += [file.read_text(encoding="utf-8") for file in (self.pins, _CPU_TORCH, _CUDA_PINS)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


#: What ``make setup`` installs. GPTQModel and its helpers are in the index as sources only.
_PRESS_FROM_SOURCE = ("defuser", "device-smi", "gptqmodel", "logbar", "pypcre", "tokenicer")


def pins_of(file: Path) -> dict[str, str]:
    """Returns the requirements of a requirement file, as they stand there, by the normalized names of distributions."""
    found, lines = {}, []
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") or not line.strip():
            continue
        lines.append(line)
        if not line.endswith("\\"):
            found[normalized(lines[0])] = "\n".join(lines)
            lines = []
    return found


def versions_of(file: Path) -> dict[str, str]:
    """Returns the versions in a requirement file by the normalized names of distributions."""
    matches = {name: _PIN.match(pin) for name, pin in pins_of(file).items()}
    return {name: match["version"] for name, match in matches.items() if match}


def normalized(requirement: str) -> str:
    """Returns the name of the distribution that ``requirement`` begins with, in the one form that PEP 503 gives it."""
    match = _NAME.match(requirement)
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else ""


def environment_folder(name: str, contents: Contents, cache: Path) -> Path:
    """Returns the folder that :func:`build_environment` uses for these contents. The folder need not exist yet."""
    return cache / "environments" / f"{name}-{contents.key()}"


def is_built(folder: Path) -> bool:
    """Whether the environment in ``folder`` is complete."""
    return (folder / _COMPLETE).exists()


def build_environment(name: str, contents: Contents, cache: Path, variables: Mapping[str, str] | None = None) -> Path:
    """Returns the folder of an environment that holds ``contents``. Builds the environment first if it is missing.

    pip runs with the environment variables ``variables`` (None: those of this process). A lock ensures that only one
    process builds the environment. Raises :class:`subprocess.CalledProcessError` if pip fails, if a file has another
    hash, or if a distribution needs another one that is not pinned. The output of pip goes to the terminal.
    """
    folder = environment_folder(name, contents, cache)
    with _locked(folder.with_suffix(".lock")):
        if not is_built(folder):
            pins = pins_of(contents.pins)
            print(f"Installing {len(pins)} packages into {folder} (minutes, once)", flush=True)
            venv.create(folder, with_pip=True, clear=True)
            wheels = {package: pin for package, pin in pins.items() if package not in contents.from_source}
            _install_wheels(folder, wheels, variables)
            # pip does not check the hashes of what it fetches to build a source. So it fetches nothing: the setuptools
            # (and CMake) that build the sources are pinned wheels, which are installed by now.
            sources = [pins[package] for package in contents.from_source]
            _install(folder, sources, ["--no-binary=:all:", "--no-build-isolation", "--use-pep517"], variables)
            _check(folder, contents.incomplete)
            (folder / _COMPLETE).touch()
    return folder


def _install_wheels(folder: Path, wheels: Mapping[str, str], variables: Mapping[str, str] | None) -> None:
    """Installs wheels. If torch is among them, prefers its build for CPUs, and else adds what its build for CUDA needs.

    pip would not prefer it by itself: among files of one version, it takes those whose hashes the index tells.
    """
    cpu, cuda = pins_of(_CPU_TORCH), pins_of(_CUDA_PINS)
    rest = dict(wheels)
    if "torch" in rest:
        with suppress(subprocess.CalledProcessError):
            _install(folder, cpu.values(), ["--only-binary=:all:", "-qqq"], variables)
            del rest["torch"]
    _install(folder, rest.values(), ["--only-binary=:all:"], variables)
    if not cuda.keys().isdisjoint(_requirements(folder, "torch")):
        _install(folder, cuda.values(), ["--only-binary=:all:"], variables)


def _install(folder: Path, pins: Collection[str], options: list[str], variables: Mapping[str, str] | None) -> None:
    """Installs distributions without their dependencies. The bin folder of the environment is first on PATH, because
    CMake is there, which builds one of the sources."""
    if not pins:
        return
    environment = dict(os.environ if variables is None else variables)
    environment["PATH"] = os.pathsep.join([str(folder / "bin"), environment.get("PATH", os.defpath)])
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "requirements.txt"
        file.write_text("".join(f"{pin}\n" for pin in pins), encoding="utf-8")
        always = ["-qq", "--disable-pip-version-check", "--no-deps", "--require-hashes", "--requirement", str(file)]
        subprocess.run([*_pip(folder), "install", *always, *options], check=True, env=environment)


def _check(folder: Path, incomplete: tuple[str, ...]) -> None:
    """Raises :class:`subprocess.CalledProcessError` if a distribution lacks a requirement that it has, apart from those
    of ``incomplete``."""
    check = [*_pip(folder), "check", "--disable-pip-version-check"]
    done = subprocess.run(check, stdout=subprocess.PIPE, text=True, check=False)
    lacking = [line for line in done.stdout.splitlines() if normalized(line) not in incomplete]
    if done.returncode != 0 and lacking:
        print("\n".join(lacking), flush=True)
        raise subprocess.CalledProcessError(done.returncode, check)


def _requirements(folder: Path, name: str) -> set[str]:
    """Returns the normalized names of what the installed distribution ``name`` requires. Empty if it is not there."""
    found = distributions(name=name, path=[str(site_packages(folder))])
    return {normalized(line) for each in found for line in each.requires or []}


def _pip(folder: Path) -> list[str]:
    return [str(folder / "bin" / "python"), "-m", "pip"]


def site_packages(environment: Path) -> Path:
    """Returns the folder with the packages of ``environment``, which must have this Python's version."""
    return environment / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def link_checkout(checkout: Path, environment: Path) -> None:
    """Makes ``checkout/.venv``, a thin environment on top of ``environment``. Code that runs in it can import the
    checkout."""
    thin = checkout / ".venv"
    if not (thin / "bin" / "python").exists():
        venv.create(thin, with_pip=False, clear=True)
    packages = site_packages(thin)
    (packages / "quantpress-environment.pth").write_text(f"{site_packages(environment)}\n", encoding="utf-8")
    pip = [*_pip(environment), "--python", str(thin / "bin" / "python")]
    install = ["install", "-qq", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, *install, "--editable", str(checkout)], check=True)
    for program in ("hf", "ninja", "cmake", "lint-imports"):
        link = thin / "bin" / program
        link.unlink(missing_ok=True)
        link.symlink_to(environment / "bin" / program)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Runs ``make setup``: builds the environment for development, and the checkout's ``.venv`` on top of it."""
    checkout = Path(__file__).resolve().parents[2]
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quantpress"
    cache = Path(os.environ.get("QUANTPRESS_CACHE") or default)
    contents = Contents(checkout / "constraints.txt", _PRESS_FROM_SOURCE)
    environment = build_environment("press", contents, cache)
    link_checkout(checkout, environment)


if __name__ == "__main__":
    main()
