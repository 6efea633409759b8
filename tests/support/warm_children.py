"""Starts warm servers (``warm/server.py``), and lets presses and their children use them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from quantpress.machine.child import child_environment

_FOLDER = Path(__file__).with_name("warm")
#: What a press's children import. They import it for 4 s, and then work for 1 s on the tests' model. No modules of
#: ours. No gptqmodel: it starts threads, which a fork loses. No gguf: the converter brings its own.
_OF_CHILDREN = (
    "pydantic",
    "jinja2.sandbox",
    "safetensors.torch",
    "accelerate",
    "bitsandbytes",
    "compressed_tensors",
    "datasets",
    "torchao",
    "transformers.generation",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
)
#: What ``quantpress`` imports: 2.5 of the 8 CPU seconds of a run that presses three variants. No huggingface_hub: it
#: reads HF_HOME, and each operator has one of its own.
_OF_PRESSES = (
    "prefect.flows",
    "prefect.artifacts",
    "pydantic",
    "typer",
    "rich.progress",
    "yaml",
    "jinja2",
    "httpx",
    "numpy",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "matplotlib.patheffects",
    "PIL.PngImagePlugin",
)
_READ_BY_PYTHON = ("PYTHON", "MKL_", "OMP_")


@contextmanager
def warm_children(address: Path) -> Iterator[None]:
    """Children that start before the server listens on ``address`` import their libraries themselves."""
    with _warm("QUANTPRESS_WARM_CHILDREN", address, child_environment(), _OF_CHILDREN, ("HF_HUB_OFFLINE",)):
        yield


@contextmanager
def warm_presses(address: Path, prefect: Mapping[str, str]) -> Iterator[None]:
    """``quantpress`` is warm only with the variables ``prefect``, and where a test keeps WARM_PRESSES for it."""
    with _warm("WARM_PRESSES", address, os.environ | prefect | {"DO_NOT_TRACK": "1"}, _OF_PRESSES, ("PREFECT_",)):
        yield


@contextmanager
def _warm(
    variable: str, address: Path, environment: Mapping[str, str], libraries: tuple[str, ...], read: tuple[str, ...]
) -> Iterator[None]:
    if str(_FOLDER) not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_FOLDER), os.environ.get("PYTHONPATH")]))
    server = subprocess.Popen(
        [sys.executable, _FOLDER / "server.py", address, ",".join(libraries), ",".join((*_READ_BY_PYTHON, *read))],
        env={**environment, "PYTHONPATH": os.environ["PYTHONPATH"]},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.environ[variable] = str(address)
    try:
        yield
    finally:
        del os.environ[variable]
        server.kill()
        server.wait()
