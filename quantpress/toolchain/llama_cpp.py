"""Finds the llama.cpp tools, or builds them once in the user's cache.

The tools are taken from a folder that the environment variable ``QUANTPRESS_LLAMA_CPP`` names, or else from PATH, or
else from the cache. The named folder must contain the tools (in itself, in ``bin`` or in ``build/bin``). The script
``convert_hf_to_gguf.py`` must be in the named folder, in ``source``, or one or two folders above the tools.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from quantpress.errors import BadInput, QuantpressError
from quantpress.files import write_text
from quantpress.machine.child import child_environment
from quantpress.toolchain.build import SOURCE_WHEEL, TARGETS, build, key
from quantpress.toolchain.cache import cache_folder, make_once
from quantpress.toolchain.progress import Progress, silent

SETTING = "QUANTPRESS_LLAMA_CPP"
_CONVERTER = "convert_hf_to_gguf.py"
_RECORD = "toolchain.json"
#: Seconds to wait for a tool that only tells its version.
_TIMEOUT = 60


@dataclass(frozen=True)
class LlamaCpp:
    """The llama.cpp tools. Each is an executable file. ``source`` is the folder of ``convert_hf_to_gguf.py``.

    ``version`` is the version for recipes. It does not depend on the machine. The tools that are built here have the
    pinned wheel's name and version. Other tools have what their ``--version`` prints. ``built_from`` names the file
    that the tools were built from, with its SHA-256. It is empty if they were not built here.
    """

    quantize: Path
    imatrix: Path
    perplexity: Path
    gguf_split: Path
    completion: Path
    source: Path
    version: str
    built_from: str = ""

    @property
    def converter(self) -> Path:
        return self.source / _CONVERTER


def find(setting: str | None = None) -> LlamaCpp | None:
    """Returns the tools in the folder ``setting``. If there is no setting, returns those on PATH or in the user's
    cache.

    If ``setting`` is None, the environment variable ``QUANTPRESS_LLAMA_CPP`` is used. Returns None if there are no
    tools. Raises :class:`BadInput` if there is a setting and something is missing in its folder.
    """
    setting = setting or os.environ.get(SETTING)
    if setting:
        return _in_folder(Path(setting).expanduser().resolve())
    return _on_path() or _in_cache()


def install(progress: Progress = silent, jobs: int | None = None) -> LlamaCpp:
    """Returns the tools that :func:`find` finds. If there are none, builds them in the user's cache, with ``jobs``
    compilers at once (default: one per core).

    If several processes call this function at the same time, only one of them builds. Raises :class:`QuantpressError`
    if the build is impossible or fails.
    """
    found = find()
    if found is not None:
        return found
    compilers = jobs or max(1, len(os.sched_getaffinity(0)))

    def make(folder: Path) -> None:
        build(folder, progress, compilers)
        write_text(folder / _RECORD, json.dumps({"version": pinned_version()}) + "\n")

    make_once(_cached_folder(), make, progress)
    built = _in_cache()
    if built is None:
        raise QuantpressError(f"{_cached_folder()} lacks some of the tools: delete it, and it is built again")
    return built


def require() -> LlamaCpp:
    """Returns the tools that :func:`find` finds. Raises :class:`QuantpressError` if there are none."""
    found = find()
    if found is None:
        raise QuantpressError("the llama.cpp tools are missing: run `quantpress toolchain install llama.cpp`")
    return found


def pinned_version() -> str:
    """Returns the version of the tools that :func:`install` builds."""
    return f"llama.cpp {SOURCE_WHEEL.label}"


def planned_version() -> str:
    """Returns the version of the tools that :func:`find` finds. If there are none, the one that would be built. Builds
    nothing."""
    found = find()
    return found.version if found is not None else pinned_version()


def planned_tools() -> dict[str, str]:
    """Returns what manifests and cards say of the tools: :func:`planned_version`, and the file that they are built from
    if they are built here."""
    found = find()
    version, source = (found.version, found.built_from) if found else (pinned_version(), SOURCE_WHEEL.provenance)
    return {"llama.cpp": version} | ({"source of llama.cpp": source} if source else {})


def _cached_folder() -> Path:
    return cache_folder() / "toolchains" / f"llama.cpp-{key()}"


def _in_cache() -> LlamaCpp | None:
    folder = _cached_folder()
    record = folder / _RECORD
    if not record.exists():
        return None
    tools = {name: folder / "bin" / name for name in TARGETS}
    if not all(_is_program(path) for path in tools.values()):
        return None
    made = _assembled(tools, folder / "source", str(json.loads(record.read_bytes())["version"]))
    return replace(made, built_from=SOURCE_WHEEL.provenance)


def _in_folder(folder: Path) -> LlamaCpp:
    for programs in (folder, folder / "bin", folder / "build" / "bin"):
        tools = {name: programs / name for name in TARGETS}
        if _is_program(tools["llama-quantize"]):
            break
    missing = [name for name, path in tools.items() if not _is_program(path)]
    trees = (folder, folder / "source", programs.parent, programs.parent.parent)
    source = next((tree for tree in trees if (tree / _CONVERTER).is_file()), None)
    if missing or source is None:
        absent = ", ".join([*missing, *([] if source else [_CONVERTER])])
        raise BadInput(f"{SETTING}={folder} lacks {absent}: point it to a built llama.cpp tree, or unset it")
    return _assembled(tools, source, _reported_version(tools["llama-perplexity"]))


def _on_path() -> LlamaCpp | None:
    found = {name: shutil.which(name) for name in (*TARGETS, _CONVERTER)}
    converter = found.pop(_CONVERTER)
    tools = {name: Path(path) for name, path in found.items() if path}
    if converter is None or len(tools) < len(TARGETS):
        return None
    return _assembled(tools, Path(converter).resolve().parent, _reported_version(tools["llama-perplexity"]))


def _assembled(tools: dict[str, Path], source: Path, version: str) -> LlamaCpp:
    return LlamaCpp(
        quantize=tools["llama-quantize"],
        imatrix=tools["llama-imatrix"],
        perplexity=tools["llama-perplexity"],
        gguf_split=tools["llama-gguf-split"],
        completion=tools["llama-completion"],
        source=source,
        version=version,
    )


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _reported_version(tool: Path) -> str:
    try:
        done = subprocess.run(
            [str(tool), "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=child_environment(),
            check=False,
            timeout=_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        raise QuantpressError(f"{tool} --version does not answer for {_TIMEOUT} s") from None
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines()]
    reported = next((line for line in lines if line.startswith("version:")), None)
    if done.returncode != 0 or reported is None:
        raise QuantpressError(
            f"{tool} --version fails (exit code {done.returncode}): was it built for another machine?"
        )
    return f"llama.cpp {reported.removeprefix('version:').strip()}"
