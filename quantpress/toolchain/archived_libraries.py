"""AutoGPTQ and AutoAWQ, which are archived, in a Python environment of their own.

They need a transformers of 2025 beside which nothing else here runs. The environment has the versions of
``archived_libraries.txt`` and is made once in the user's cache. Whoever runs something in it gives a program that
imports nothing of quantpress, which is not there.
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
#: autoawq asks for a triton that a CPU has not. AutoGPTQ's wheels carry CUDA code for a torch of 2024; its source is
#: Python alone where BUILD_CUDA_EXT is 0.
_LIBRARIES = ["auto-gptq", "autoawq"]
_VARIABLES = {"BUILD_CUDA_EXT": "0"}


def pins() -> dict[str, str]:
    """The exact version of every distribution in the environment."""
    lines = (line.partition("#")[0].strip() for line in _PINS.read_text(encoding="utf-8").splitlines())
    return dict(line.split("==") for line in lines if line)


def folder() -> Path:
    """Where the environment is, or will be."""
    return environment_folder(NAME, _REQUIREMENTS, _PINS, cache_folder(), _LIBRARIES)


def find() -> Path | None:
    """The environment's interpreter, or nothing where the environment was not made to its end."""
    return _interpreter(folder()) if is_built(folder()) else None


def require() -> Path:
    """The environment's interpreter. Raises :class:`Refused`, saying how to make it, where it is missing."""
    found = find()
    if found is None:
        raise Refused(f"the archived libraries are not installed: run `quantpress toolchain install {NAME}`")
    return found


def install(progress: Progress = silent) -> Path:
    """The environment's interpreter; makes the environment first where it is missing.

    Raises :class:`QuantpressError` when pip fails; what pip said is on the terminal then.
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
    """What the environment is there for, with versions."""
    found = pins()
    return ", ".join(f"{name} {found[name]}" for name in ("auto-gptq", "autoawq", "transformers", "torch"))


def _interpreter(environment: Path) -> Path:
    return environment / "bin" / "python"
