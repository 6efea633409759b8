"""The toolchains and their names. ``quantpress toolchain list`` shows them, and ``quantpress toolchain install`` makes
one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quantpress.errors import BadInput
from quantpress.hints import hint
from quantpress.toolchain import archived_libraries, exllama, llama_cpp
from quantpress.toolchain.progress import Progress


@dataclass(frozen=True)
class Installed:
    """A toolchain that is installed: its version and its folder. ``built_from`` names the file that it was built from,
    with its SHA-256, if there is one such file."""

    version: str
    folder: Path
    built_from: str = ""


@dataclass(frozen=True)
class Toolchain:
    """A toolchain that can be installed.

    ``find`` looks for the installed toolchain and makes nothing. ``install`` makes the toolchain once, in the user's
    cache. If ``on_demand`` is true, a run that needs the toolchain installs it. Otherwise, an operator must install it.
    """

    name: str
    purpose: str
    find: Callable[[], Installed | None]
    install: Callable[[Progress], Installed]
    on_demand: bool = False


def toolchain(name: str) -> Toolchain:
    """Returns the toolchain named ``name``. Raises :class:`BadInput` if there is none."""
    found = {each.name: each for each in TOOLCHAINS}
    if name not in found:
        raise BadInput(f"unknown toolchain {name!r}: {hint(name, found)}")
    return found[name]


def install_on_demand(name: str | None, progress: Progress) -> str | None:
    """Installs the toolchain named ``name`` if it is ``on_demand``, and returns its version.

    Returns None if ``name`` is None or the toolchain is not ``on_demand``.
    """
    if name is None or not (found := toolchain(name)).on_demand:
        return None
    return found.install(progress).version


def _find_llama_cpp() -> Installed | None:
    found = llama_cpp.find()
    return _llama_cpp(found) if found else None


def _install_llama_cpp(progress: Progress) -> Installed:
    return _llama_cpp(llama_cpp.install(progress))


def _llama_cpp(tools: llama_cpp.LlamaCpp) -> Installed:
    return Installed(tools.version, tools.source.parent, tools.built_from)


def _find_archived_libraries() -> Installed | None:
    found = archived_libraries.find()
    return _archived(found) if found else None


def _install_archived_libraries(progress: Progress) -> Installed:
    return _archived(archived_libraries.install(progress))


def _archived(interpreter: Path) -> Installed:
    return Installed(archived_libraries.version(), interpreter.parents[1])


def _exllama(package: exllama.ExLlama, purpose: str) -> Toolchain:
    def find() -> Installed | None:
        folder = exllama.find(package)
        return Installed(package.version, folder, package.wheel.provenance) if folder else None

    def install(progress: Progress) -> Installed:
        return Installed(package.version, exllama.install(package, progress), package.wheel.provenance)

    return Toolchain(package.name, purpose, find, install)


TOOLCHAINS = (
    Toolchain("llama.cpp", "the format gguf", _find_llama_cpp, _install_llama_cpp, on_demand=True),
    Toolchain(
        archived_libraries.NAME,
        "the backends auto-gptq and autoawq",
        _find_archived_libraries,
        _install_archived_libraries,
    ),
    _exllama(exllama.EXLLAMAV3, "the format exl3, on CUDA"),
    _exllama(exllama.EXLLAMAV2, "the format exl2, on CUDA"),
)
