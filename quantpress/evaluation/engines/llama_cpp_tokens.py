"""Asks llama-perplexity for the token ids that a GGUF file's own tokenizer gives.

The tool writes the ids at the start of its file of log-probabilities, before it computes anything. So the file is a
pipe, and the tool is ended as soon as the ids are read.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from quantpress.errors import ChildFailed
from quantpress.evaluation.logits import LogitsHeader, parse_header
from quantpress.toolchain.llama_cpp import LlamaCpp
from quantpress.toolchain.run import run_tool

#: The tokens in a window. llama.cpp rounds smaller windows up to this number (``GGML_PAD`` in src/llama-context.cpp).
WINDOW = 256
#: The tool needs two windows.
FEWEST_TOKENS = 2 * WINDOW


def header_of(go: Callable[[Path], object]) -> LogitsHeader:
    """Returns the header of the file that a run of llama-perplexity writes.

    ``go`` runs the tool, which must write its file of log-probabilities to the given path. Raises the errors of ``go``.
    """
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(max_workers=1) as reader:
        pipe = Path(scratch) / "logits"
        os.mkfifo(pipe)
        # This process holds the pipe open for writing. So the reader can open the pipe without waiting for the tool.
        held = [os.open(pipe, os.O_RDWR)]

        def let_go(_: object = None) -> None:
            with suppress(IndexError):
                os.close(held.pop())

        def read() -> LogitsHeader:
            with pipe.open("rb") as stream:
                return parse_header(stream, "the pipe of log-probabilities")

        header = reader.submit(read)
        # When no process has the pipe open for reading, the tool's next write kills the tool (SIGPIPE).
        header.add_done_callback(let_go)
        try:
            go(pipe)
        except ChildFailed as failure:
            if "was killed by SIGPIPE" not in str(failure):
                raise
        finally:
            let_go()
        return header.result()


def tokens_of(tools: LlamaCpp, model: Path, text: Path) -> list[int]:
    """Returns the token ids of ``text``, with the BOS token in front if the tokenizer adds one.

    The ids of up to ``WINDOW - 1`` tokens at the end are missing. The text must have :data:`FEWEST_TOKENS`. Raises
    :class:`ChildFailed` if the tool fails.
    """
    options = ["--chunks", "-1", "--threads", "1", "--no-warmup", "--device", "none"]
    options += [item for name in ("ctx", "batch", "ubatch") for item in (f"--{name}-size", str(WINDOW))]
    command: list[str | Path] = [tools.perplexity, "--model", model.resolve(), *options]
    found = header_of(
        lambda pipe: run_tool([*command, "--file", text.resolve(), "--save-all-logits", pipe], Path.cwd())
    )
    return [int(token) for token in found.tokens.reshape(-1)]
