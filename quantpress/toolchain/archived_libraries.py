"""AutoGPTQ and AutoAWQ, both archived, in their own Python environment.

They need a transformers of 2025, with which nothing else here runs. The environment has the versions of
``archived_libraries.txt`` and is made once in the user's cache. quantpress is not installed there, so a program that
runs in the environment must not import it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from quantpress.errors import QuantpressError, Refused
from quantpress.machine.child import child_environment
from quantpress.toolchain.cache import cache_folder
from quantpress.toolchain.environment import build_environment, environment_folder, is_built
from quantpress.toolchain.progress import Progress, silent

NAME = "archived-libraries"
_PINS = Path(__file__).with_name("archived_libraries.txt")
#: What the two libraries import.
_REQUIREMENTS = [
    "transformers", "torch", "accelerate", "peft", "datasets", "tokenizers", "sentencepiece", "protobuf", "safetensors",
    "numpy", "rouge", "gekko",
]  # fmt: skip
#: autoawq requires a triton that a machine without a GPU does not have. AutoGPTQ's wheels carry CUDA code for a torch
#: of 2024. With BUILD_CUDA_EXT=0, its source is pure Python.
_LIBRARIES = ["auto-gptq", "autoawq"]
_VARIABLES = {"BUILD_CUDA_EXT": "0"}


def pins() -> dict[str, str]:
    """Returns the exact version of every distribution in the environment."""
    lines = (line.partition("#")[0].strip() for line in _PINS.read_text(encoding="utf-8").splitlines())
    return dict(line.split("==") for line in lines if line)


def folder() -> Path:
    """Returns the folder where the environment is, or will be."""
    return environment_folder(NAME, _REQUIREMENTS, _PINS, cache_folder(), _LIBRARIES)


def find() -> Path | None:
    """Returns the environment's interpreter; None if the environment is missing or unfinished."""
    return _interpreter(folder()) if is_built(folder()) else None


def require() -> Path:
    """Returns the environment's interpreter. Raises :class:`Refused` if the environment is missing, and says how to
    make it."""
    found = find()
    if found is None:
        raise Refused(f"the archived libraries are not installed: run `quantpress toolchain install {NAME}`")
    return found


def install(progress: Progress = silent) -> Path:
    """Returns the environment's interpreter. Makes the environment first if it is missing.

    Raises :class:`QuantpressError` when pip fails. pip's output is then on the terminal.
    """
    progress(f"installing {NAME}", 0, 0)
    variables = child_environment() | _VARIABLES
    try:
        made = build_environment(NAME, _REQUIREMENTS, _PINS, cache_folder(), _LIBRARIES, variables)
    except subprocess.CalledProcessError as error:
        raise QuantpressError(
            f"pip could not install the archived libraries (exit code {error.returncode}, its reason is above): "
            "check the package index"
        ) from None
    return _interpreter(made)


def version() -> str:
    """Returns the environment's main packages with their versions."""
    found = pins()
    return ", ".join(f"{name} {found[name]}" for name in ("auto-gptq", "autoawq", "transformers", "torch"))


def _interpreter(environment: Path) -> Path:
    return environment / "bin" / "python"
