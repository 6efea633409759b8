"""Installs ExLlamaV3 and ExLlamaV2, two Python packages that contain the source of a CUDA extension.

Each package compiles its extension when it is first imported, which takes minutes. Without this module, a job would
spend these minutes on each new machine, and two jobs would compile at the same time. This module compiles the extension
once, for the GPUs of this machine, in the user's cache. Package and extension are in ``site``, a
subfolder of the build's folder, so the package finds the extension.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from quantpress.errors import QuantpressError, Refused
from quantpress.machine.child import child_environment
from quantpress.toolchain.cache import cache_folder, make_once
from quantpress.toolchain.logged import run_logged
from quantpress.toolchain.machine import Cuda, cuda
from quantpress.toolchain.progress import Progress, silent
from quantpress.toolchain.wheel import PinnedWheel, download, install_pinned, unpack


@dataclass(frozen=True)
class ExLlama:
    """One of the two packages.

    ``other_platforms`` is a folder of sources that a CUDA build does not compile. ``requirements`` are pip requirement
    lines with hashes. They name the distributions that this package imports and nothing else does. ``switches`` are
    environment variables that the package reads when it is imported. Raise ``edition`` if the files that the package
    makes would differ from those it made before. This is so after a change to ``switches``, or to the code in
    quantizers/ that replaces parts of the package.
    """

    wheel: PinnedWheel
    other_platforms: str | None = None
    requirements: tuple[str, ...] = ()
    switches: tuple[tuple[str, str], ...] = ()
    edition: int | None = None

    @property
    def name(self) -> str:
        return self.wheel.name

    @property
    def version(self) -> str:
        """The version for recipes. It is the same on every machine.

        "quantpress mend" is the name of the corrections that quantpress makes to the package: ``switches``, and the
        code in quantizers/ that replaces parts of the package. The number after it is ``edition``.
        """
        return f"{self.wheel.name} {self.wheel.version}" + (f", quantpress mend {self.edition}" if self.edition else "")

    @property
    def extension(self) -> str:
        return f"{self.wheel.name}_ext"


EXLLAMAV3 = ExLlama(
    PinnedWheel("exllamav3", "1.6.5", "550c0d04c755f249840e5c1edc26b0e80c7342c33b5d99ad17479abb407e8ded"),
    "rocm",
    (
        "marisa-trie==1.4.1"  # CPython 3.11, 3.12 and 3.13 on x86-64 Linux
        " --hash=sha256:29eb718078431518d13037830c50023333721b146ca58eb78889aabfa60f4c33"
        " --hash=sha256:4d51bdd22a7238ef4d681effd7c224a267ddae054b64b1cec9ce95bbcd2b6a88"
        " --hash=sha256:eaa3db575cb757f98d2754bcab5e1e0b2a884dc611964ac2659be13b58ef32e8",
    ),
)
EXLLAMAV2 = ExLlama(
    PinnedWheel("exllamav2", "0.3.2", "7cd61ae4bf1d8d12034595ab9731f0f43bac415d6394fbb273d4383293d6079e"),
    # Without flash-attn, the package uses PyTorch's SDPA for attention, and then forgets the causal mask. The error is
    # in the function _attn_torch in exllamav2/attn.py. Because of ``or causal``, the function uses the mask of
    # block_diag_layers, and that mask does not exist. So every token sees the tokens after it, both in quantizing and
    # in measuring. EXL2 with 4.0 bits per weight had a mean divergence of 1.36. EXL3 with 4.0 bits had 0.05
    # (docs/benchmarks.md). The switch selects the package's own matmul attention, which applies the causal mask.
    switches=(("EXLLAMA_NO_SDPA", "1"),),
    edition=2,  # 2: since quantizers.exl.exl2_backend.token_accuracy replaces a part of the package
)


def find(package: ExLlama) -> Path | None:
    """Returns the folder of a package that was built for this machine and this torch, or None if it was not built."""
    try:
        folder = _folder(package, cuda())
    except Refused:
        return None
    return folder if folder.exists() else None


def require(package: ExLlama) -> Path:
    """Returns the folder that :func:`find` finds.

    If there is none, raises :class:`Refused`, with the command that builds the package.
    """
    found = find(package)
    if found is None:
        raise Refused(f"{package.name} is not built on this machine: run `quantpress toolchain install {package.name}`")
    return found


def activate(package: ExLlama) -> None:
    """Makes ``import exllamav3`` (or ``exllamav2``) find the built package, and sets the package's switches.

    Only child processes call this function. Raises the same errors as :func:`require`.
    """
    site = str(require(package) / "site")
    os.environ.update(package.switches)
    if site not in sys.path:
        sys.path.insert(0, site)


def install(package: ExLlama, progress: Progress = silent, jobs: int | None = None) -> Path:
    """Returns the folder that :func:`find` finds. If there is none, builds it, with ``jobs`` compilers at once
    (default: one per core).

    If several processes call this function at the same time, only one of them builds. Raises :class:`Refused` if torch,
    a GPU or nvcc is missing. Raises :class:`QuantpressError` if the build fails.
    """
    compiler = cuda()
    folder = _folder(package, compiler)
    if compiler is None:
        raise Refused(f"{package.name} needs nvcc and a GPU to be built, and one of the two is missing")
    compilers = jobs or len(os.sched_getaffinity(0))
    return make_once(folder, lambda part: _build(package, compiler, part, progress, compilers), progress)


def _folder(package: ExLlama, compiler: Cuda | None) -> Path:
    """Returns the cache folder of a build. Raises :class:`Refused` if torch is not installed.

    The folder's name contains a hash of everything that decides whether the extension loads and runs.
    """
    try:
        torch = version("torch")
    except PackageNotFoundError:
        raise Refused(
            "torch is not installed: in the checkout of quantpress, run `make setup` or `pip install -e '.[torch]'`"
        ) from None
    parts = {
        "source": [package.wheel.sha256, *package.requirements],
        "torch": torch,
        "python": sys.implementation.cache_tag,
        "capabilities": compiler.capabilities if compiler else (),
    }
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    return cache_folder() / "toolchains" / f"{package.name}-{key}"


def _build(package: ExLlama, compiler: Cuda, folder: Path, progress: Progress, jobs: int) -> None:
    progress(f"downloading {package.wheel.label}", 0, 0)
    work, site = folder / "work", folder / "site"
    unpack(download(package.wheel, work / "wheel"), site)
    install_pinned(package.requirements, site)
    log = folder.parent / f"{package.name}-build.log"
    # Importing the package compiles the extension. The package chooses the sources and the flags.
    environment = child_environment() | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")])),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "CUDA_HOME": os.environ.get("CUDA_HOME") or str(compiler.compiler.parent.parent),
        "TORCH_CUDA_ARCH_LIST": ";".join(compiler.capabilities),
        "TORCH_EXTENSIONS_DIR": str(work),
        "MAX_JOBS": str(jobs),
    }
    log.unlink(missing_ok=True)
    what, count = f"building {package.name}", _Count(package, folder)
    total = count.total()
    command = [sys.executable, "-c", f"import {package.name}.ext"]
    run_logged(command, environment, log, what, lambda: progress(what, min(count.done(), total), total))
    built = work / package.extension / f"{package.extension}.so"
    if not built.is_file():
        raise QuantpressError(f"{package.name} was imported, but left no {built.name} (log: {log})")
    built.rename(site / built.name)
    shutil.rmtree(work)
    log.unlink()


@dataclass(frozen=True)
class _Count:
    """Counts the files of an extension: how many there are, and how many are already compiled."""

    package: ExLlama
    folder: Path

    def total(self) -> int:
        sources = self.folder / "site" / self.package.name / self.package.extension
        files = [path for pattern in ("*.cu", "*.cpp") for path in sources.rglob(pattern)]
        return sum(self.package.other_platforms not in path.relative_to(sources).parts for path in files)

    def done(self) -> int:
        return len(list((self.folder / "work" / self.package.extension).glob("*.o")))
