"""Converts a source model to GGUF files with llama.cpp's own converter. Nothing is quantized here."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from quantizers.gguf.unquantized import UnquantizedType
from quantpress.errors import ChildFailed, Refused
from quantpress.files import atomic
from quantpress.foreign_json import read_object
from quantpress.source.config import CONFIG_FILE, model_config
from quantpress.source.tokenizer import JINJA_FILE, TOKENIZER_CONFIG_FILE, tokenizer
from quantpress.source.weight_files import weight_paths
from quantpress.toolchain.llama_cpp import LlamaCpp
from quantpress.toolchain.run import run_tool

#: The converter may see only files of a source with these suffixes, and the weights: configuration and tokenizer. It
#: must not see code or pickles.
_SEEN_SUFFIXES = {".json", ".model", ".txt", ".md", ".jinja", ".tiktoken"}
#: The converter reads all safetensors files whose names begin so (conversion/base.py, ``index_tensors``).
_WEIGHTS = "model"
#: These match what the converter logs before it gives up (convert_hf_to_gguf.py; conversion/base.py,
#: ``get_vocab_base_pre``).
_UNKNOWN_ARCHITECTURE = re.compile(r"Model (\S+) is not supported")
_UNKNOWN_PRE_TOKENIZER = re.compile(r"\*\* chkhsh: +([0-9a-f]{64})")
_REMEDY = "take a newer llama.cpp (QUANTPRESS_LLAMA_CPP) or leave gguf out of the model's formats"


def convert(tools: LlamaCpp, source: Path, model_name: str, storage: UnquantizedType, file: Path) -> None:
    """Writes the language model of ``source`` to ``file``. The matrices have the type ``storage``, and the vectors are
    float32.

    Raises :class:`Refused` when llama.cpp's converter does not know the architecture or the pre-tokenizer, and when the
    source holds no safetensors. Raises ``ChildFailed`` when the converter fails.
    """
    with atomic(file) as temporary:
        _run(tools, source, model_name, ["--outtype", storage.lower(), "--outfile", temporary])


def convert_projector(tools: LlamaCpp, source: Path, model_name: str, file: Path) -> None:
    """Writes the encoder of ``source`` for images or sound, and the encoder's projector, to ``file`` in float16.

    Raises :class:`Refused` when the converter knows no projector for the architecture, and ``ChildFailed`` when the
    converter fails.
    """
    with atomic(file) as temporary:
        _run(tools, source, model_name, ["--mmproj", "--outtype", "f16", "--outfile", temporary])


def convert_vocabulary(tools: LlamaCpp, source: Path, model_name: str, file: Path) -> None:
    """Writes the metadata and the tokenizer of ``source`` to ``file``, without weights. This takes seconds.

    Raises :class:`Refused` when llama.cpp's converter does not know the architecture or the pre-tokenizer, when the
    converter cannot read the tokenizer or it has more tokens than the model, and when the source holds no safetensors.
    """
    try:
        with atomic(file) as temporary:
            _run(tools, source, model_name, ["--vocab-only", "--outfile", temporary])
    except ChildFailed as error:
        if reason := too_many_tokens(source):
            raise Refused(reason) from None
        raise Refused(f"llama.cpp's converter cannot read its tokenizer ({last_words(error)}): {_REMEDY}") from None


def too_many_tokens(source: Path) -> str | None:
    """Returns why the converter cannot read a tokenizer with more tokens than the model has embeddings (``vocab_size``
    of config.json), or None if it has not. The converter only asserts this (conversion/base.py, ``get_vocab_base``)."""
    tokens = tokenizer(source).size
    rows = model_config(read_object(source / CONFIG_FILE)).text.vocab_size
    if rows is None or tokens <= rows:
        return None
    return (
        f"its tokenizer has {tokens} tokens and its config.json says vocab_size {rows}, so {tokens - rows} of the "
        "tokens have no embedding: ask upstream to resize the embeddings or to remove these tokens, or leave gguf out "
        "of the model's formats"
    )


def last_words(error: ChildFailed) -> str:
    """Returns the line with which a failed tool gave up, or the last line that it wrote."""
    return error.cause or str(error).splitlines()[-1].strip(" |")


def _run(tools: LlamaCpp, source: Path, model_name: str, options: list[str | Path]) -> None:
    """Runs the converter on a folder of links to the source's files. The folder has the model's name, because the
    converter takes names in the metadata from the folder's name."""
    weights = weight_paths(source)
    if not weights:
        raise Refused(f"{source} holds no safetensors file: only such weights are read")
    seen = {path.name: path for path in sorted(source.iterdir()) if path.is_file() and path.suffix in _SEEN_SUFFIXES}
    seen |= {path.name if path.name.startswith(_WEIGHTS) else f"{_WEIGHTS}-{path.name}": path for path in weights}
    with tempfile.TemporaryDirectory() as scratch:
        view = Path(scratch) / model_name
        view.mkdir()
        for name, path in seen.items():
            (view / name).symlink_to(path.resolve())
        _leave_one_template(view)
        command: list[str | Path] = [sys.executable, tools.converter, view, "--model-name", model_name, *options]
        run_tool(command, Path(scratch), _refuse_unknown(tools.version))


def _leave_one_template(view: Path) -> None:
    """Takes the chat template out of the tokenizer_config.json in ``view``, if there is a chat_template.jinja.

    transformers takes chat_template.jinja, and the converter the other one (gguf-py/gguf/vocab.py, ``SpecialVocab``).
    """
    file = view / TOKENIZER_CONFIG_FILE
    if not (view / JINJA_FILE).exists() or not file.exists():
        return
    content = read_object(file)
    if content.pop("chat_template", None) is not None:
        file.unlink()
        file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _refuse_unknown(version: str) -> Callable[[str], None]:
    def look(line: str) -> None:
        if found := _UNKNOWN_ARCHITECTURE.search(line):
            raise Refused(f"the converter of {version} does not know the architecture {found[1]}: {_REMEDY}")
        if found := _UNKNOWN_PRE_TOKENIZER.search(line):
            raise Refused(f"the converter of {version} does not know its pre-tokenizer (hash {found[1]}): {_REMEDY}")

    return look
