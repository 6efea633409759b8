"""The source as an unquantized GGUF, by llama.cpp's own converter."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from quantpress.errors import Refused
from quantpress.files import atomic
from quantpress.toolchain.llama_cpp import LlamaCpp
from quantpress.toolchain.run import run_tool

#: What the converter may see of a source: safetensors, configuration and tokenizer; neither code nor pickles.
_SEEN_SUFFIXES = {".json", ".safetensors", ".model", ".txt", ".md", ".jinja", ".tiktoken"}


def convert(tools: LlamaCpp, source: Path, model_name: str, file: Path) -> None:
    """Writes ``file``: the model of ``source`` with its matrices in float16, its vectors in float32.

    The converter sees the source through a folder of links named after the model, for it takes the metadata's
    names from the folder's. Raises :class:`Refused` when the source holds no safetensors, ``ChildFailed`` when
    llama.cpp does not know the architecture or the tokenizer.
    """
    seen = [path for path in sorted(source.iterdir()) if path.is_file() and path.suffix in _SEEN_SUFFIXES]
    if not any(path.suffix == ".safetensors" for path in seen):
        raise Refused(f"{source} holds no safetensors file: only such weights are read")
    with atomic(file) as temporary, tempfile.TemporaryDirectory() as scratch:
        view = Path(scratch) / model_name
        view.mkdir()
        for path in seen:
            (view / path.name).symlink_to(path.resolve())
        command: list[str | Path] = [sys.executable, tools.converter, view]
        command += ["--outtype", "f16", "--model-name", model_name, "--outfile", temporary]
        run_tool(command, Path(scratch))
