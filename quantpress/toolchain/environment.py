"""Builds Python environments in the user's cache. Each has a key: a hash of everything that decides what is in it.

Installing the requirements of quantpress takes minutes. A second checkout with the same pinned versions must not
install them again. So this module builds the environment once, in the cache folder. The ``.venv`` of a checkout is only
a thin environment: its path file (``.pth``) refers to the cached environment. ``make setup`` runs this module as
``python3 -m quantpress.toolchain.environment`` before anything is installed. So this module uses only the standard
library.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_SELF = re.compile(r"^quantpress\[(?P<extras>[^\]]+)\]$")
#: This file is written last. If an environment lacks it, the environment is unfinished and is built again.
_COMPLETE = "complete"


def requirements_of(pyproject: Path, extra: str) -> list[str]:
    """Returns the project's requirements and those of the extra ``extra``.

    If a requirement names an extra of quantpress itself, it is replaced by the requirements of that extra.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]

    def expand(name: str) -> Iterator[str]:
        for requirement in extras[name]:
            own = _SELF.match(requirement)
            if own is None:
                yield requirement
            else:
                for inner in own["extras"].split(","):
                    yield from expand(inner.strip())

    return list(dict.fromkeys([*project["dependencies"], *expand(extra)]))


def environment_key(requirements: list[str], constraints: str) -> str:
    """Returns a hash of everything that decides what an environment holds."""
    parts = [platform.python_version(), platform.machine(), sys.platform, *requirements, constraints]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def environment_folder(
    name: str, requirements: list[str], constraints: Path, cache: Path, alone: Sequence[str] = ()
) -> Path:
    """Returns the folder that :func:`build_environment` uses for these requirements. The folder need not exist yet."""
    key = environment_key([*requirements, *alone], constraints.read_text(encoding="utf-8"))
    return cache / "environments" / f"{name}-{key}"


def is_built(folder: Path) -> bool:
    """Whether the environment in ``folder`` is complete."""
    return (folder / _COMPLETE).exists()


def build_environment(
    name: str,
    requirements: list[str],
    constraints: Path,
    cache: Path,
    alone: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
) -> Path:
    """Returns the folder of an environment that holds ``requirements``. Builds the environment first if it is missing.

    ``constraints`` is a file with the exact versions. The packages named in ``alone`` are installed after
    ``requirements``, from source and without their dependencies. pip runs with the environment variables ``variables``
    (None: those of this process). A lock ensures that only one process builds the environment. Raises
    :class:`subprocess.CalledProcessError` if pip fails. The output of pip goes to the terminal.
    """
    folder = environment_folder(name, requirements, constraints, cache, alone)
    with _locked(folder.with_suffix(".lock")):
        if not is_built(folder):
            count = len(requirements) + len(alone)
            print(f"Installing {count} requirements into {folder} (minutes, once)", flush=True)
            venv.create(folder, with_pip=True, clear=True)
            pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
            pip += ["-c", str(constraints)]
            subprocess.run([*pip, *requirements], check=True, env=variables)
            if alone:
                subprocess.run([*pip, "--no-deps", f"--no-binary={','.join(alone)}", *alone], check=True, env=variables)
            (folder / _COMPLETE).touch()
    return folder


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
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--python", str(thin / "bin" / "python")]
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
    requirements = [*requirements_of(checkout / "pyproject.toml", "dev"), "setuptools"]
    environment = build_environment("press", requirements, checkout / "constraints.txt", cache)
    link_checkout(checkout, environment)


if __name__ == "__main__":
    main()
