"""Makes a Python environment for AutoGPTQ and AutoAWQ, two archived libraries.

Both need a transformers of 2025, with which nothing else here runs. The environment has the versions listed in
``archived_libraries.txt``, and is made once, in the user's cache. quantpress is not installed in the environment, so a
program that runs there must not import quantpress.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from quantpress.errors import QuantpressError, Refused
from quantpress.machine.credentials import environment_of_downloads
from quantpress.toolchain.cache import cache_folder
from quantpress.toolchain.environment import Contents, build_environment, environment_folder, is_built, versions_of
from quantpress.toolchain.progress import Progress, silent

NAME = "archived-libraries"
_PINS = Path(__file__).with_name("archived_libraries.txt")
#: The two libraries are built from source. The wheels of AutoGPTQ carry CUDA code for a torch of 2024, but its source
#: is pure Python if BUILD_CUDA_EXT is 0. autoawq has no wheel. It requires a triton that a machine without a GPU does
#: not have, and zstandard, which none of its modules imports.
_CONTENTS = Contents(_PINS, from_source=("auto-gptq", "autoawq"), incomplete=("autoawq",))
_VARIABLES = {"BUILD_CUDA_EXT": "0"}


def pins() -> dict[str, str]:
    """Returns a dict from every distribution in the environment to its exact version."""
    return versions_of(_PINS)


def folder() -> Path:
    """Returns the environment's folder. The folder need not exist yet."""
    return environment_folder(NAME, _CONTENTS, cache_folder())


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
    variables = environment_of_downloads() | _VARIABLES
    try:
        made = build_environment(NAME, _CONTENTS, cache_folder(), variables)
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
