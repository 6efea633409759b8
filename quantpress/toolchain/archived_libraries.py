"""Makes a Python environment for AutoGPTQ and AutoAWQ, two archived libraries.

Both need a transformers of 2025, with which nothing else here runs. The environment has the versions listed in
``archived_libraries.txt``, and is made once, in the user's cache. quantpress is not installed in the environment, so a
program that runs there must not import quantpress.
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
#: The packages that the two libraries import.
_REQUIREMENTS = [
    "transformers", "torch", "accelerate", "peft", "datasets", "tokenizers", "sentencepiece", "protobuf", "safetensors",
    "numpy", "rouge", "gekko",
]  # fmt: skip
#: The two libraries are installed without their dependencies and from source. autoawq requires a triton that a machine
#: without a GPU does not have. The wheels of AutoGPTQ carry CUDA code for a torch of 2024, but its source is pure
#: Python if BUILD_CUDA_EXT is 0.
_LIBRARIES = ["auto-gptq", "autoawq"]
_VARIABLES = {"BUILD_CUDA_EXT": "0"}


def pins() -> dict[str, str]:
    """Returns a dict from every distribution in the environment to its exact version."""
    lines = (line.partition("#")[0].strip() for line in _PINS.read_text(encoding="utf-8").splitlines())
    return dict(line.split("==") for line in lines if line)


def folder() -> Path:
    """Returns the environment's folder. The folder need not exist yet."""
    return environment_folder(NAME, _REQUIREMENTS, _PINS, cache_folder(), _LIBRARIES)


def find() -> Path | None:
    """Returns the environment's interpreter, or None if the environment is missing or unfinished."""
    return _interpreter(folder()) if is_built(folder()) else None


def require() -> Path:
    """Returns the environment's interpreter.

    If the environment is missing, raises :class:`Refused`, with the command that makes it.
    """
    found = find()
    if found is None:
        raise Refused(f"the archived libraries are not installed: run `quantpress toolchain install {NAME}`")
    return found


def install(progress: Progress = silent) -> Path:
    """Returns the environment's interpreter. If the environment is missing, makes it first.

    Raises :class:`QuantpressError` if pip fails. The output of pip goes to the terminal.
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
    """Returns the names and versions of the environment's main packages, as one text."""
    found = pins()
    return ", ".join(f"{name} {found[name]}" for name in ("auto-gptq", "autoawq", "transformers", "torch"))


def _interpreter(environment: Path) -> Path:
    return environment / "bin" / "python"
