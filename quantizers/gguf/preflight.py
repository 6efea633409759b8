"""Checks a source before it is converted. The checks find what would make its GGUF variants fail hours later or be
wrong without any message."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from quantizers.gguf.convert import convert_vocabulary
from quantizers.gguf.engines import EnginesReport, compare_engines
from quantizers.gguf.unquantized import UnquantizedType
from quantpress.errors import Refused
from quantpress.machine.memory import available_memory
from quantpress.source.gguf import read_gguf
from quantpress.source.weights import WeightsReport, check_weights
from quantpress.toolchain.llama_cpp import LlamaCpp

#: The bytes of memory that the converter needs per element of the largest tensor. The converter holds the tensor in
#: several forms at the same time: as stored, in float32, and as written. If experts were stacked, it holds the tensor
#: in float32 a second time, because the converter's lazy tensors keep the tensors that they are made of.
_CONVERTING = 12
#: The bytes that the converter's Python takes with torch and transformers. Measured: the whole converter takes 0.50 GB
#: for a model of 35 M weights, whose largest tensor has 28 M weights, with a vocabulary of 49152 tokens.
_PROGRAM = 1_000_000_000
#: The bytes per weight of the unquantized model when transformers measures it on a CPU, in float32. llama.cpp's tools
#: do not need more, because they map the unquantized GGUF into memory.
_MEASURING = 4
#: The bytes that measuring takes besides these weights: Python with torch and transformers, and the activations and
#: logits of one pass. A pass has at most 2048 positions. If the logits of half of the positions are kept, they take 1.1
#: GB for 262144 tokens, the largest vocabulary in use.
_BESIDE_WEIGHTS = 2_000_000_000
#: GGUF's names of the tokenizers SPM and WPM. For these two, llama.cpp puts a BOS before a text unless the GGUF file
#: says otherwise (src/llama-vocab.cpp).
_ADDING = ("llama", "bert")
_NO_TEXTS: Mapping[str, Path] = {}


def check_source(
    tools: LlamaCpp,
    source: Path,
    model_name: str,
    storage: UnquantizedType,
    device: Literal["cpu", "cuda"],
    texts: Mapping[str, Path] = _NO_TEXTS,
) -> EnginesReport:
    """Raises :class:`Refused` if no GGUF variant can be made from the source. The message is one line that says what to
    do.

    This function checks that the weights are complete and finite, and that they stay finite in ``storage`` (the type of
    the unquantized GGUF). It checks that there is enough memory, that the converter knows the architecture and the
    tokenizer, and the BOS token (:func:`check_bos`). Last, it compares what llama.cpp and transformers make of
    ``texts``, the texts of the run by name, and of a dialogue (:func:`compare_engines`).
    """
    weights = check_weights(source)
    if storage == "F16" and weights.beyond_float16:
        more = f" (and {len(weights.beyond_float16) - 1} more tensors)" if len(weights.beyond_float16) > 1 else ""
        raise Refused(
            f"{weights.beyond_float16[0]}{more} has values beyond 65504, which are infinite in the float16 that "
            "every rung is made from: leave gguf out of the model's formats"
        )
    require_memory(memory_needed(weights, device), available_memory())
    with tempfile.TemporaryDirectory() as scratch:
        vocabulary = Path(scratch) / "vocabulary.gguf"
        convert_vocabulary(tools, source, model_name, vocabulary)
        check_bos(vocabulary)
        return compare_engines(tools, source, vocabulary, texts)


def memory_needed(weights: WeightsReport, device: Literal["cpu", "cuda"]) -> int:
    """Returns how many bytes of RAM are needed. The converter needs RAM for its largest tensor. On a CPU, measuring the
    unquantized model needs RAM too. The larger of the two counts.

    On CUDA, measuring needs GPU memory instead. :func:`quantpress.plan.devices.require_device` checks the GPU memory.
    """
    measuring = _MEASURING * weights.weights + _BESIDE_WEIGHTS if device == "cpu" else 0
    return max(measuring, _PROGRAM + _CONVERTING * weights.largest_tensor)


def require_memory(needed: int, available: int) -> None:
    """Raises :class:`Refused` when ``needed`` bytes are more than the ``available`` bytes."""
    if needed > available:
        raise Refused(
            f"{needed / 1e9:.1f} GB of memory are needed for the unquantized model and {available / 1e9:.1f} GB are "
            "available: end other programs, or press it on a machine with more"
        )


def check_bos(file: Path) -> None:
    """Raises :class:`Refused` when a GGUF file asks for a BOS token before each text but names no valid BOS token.

    If the file names no BOS token, llama.cpp takes a fixed token number (11 for BPE, 1 for SPM). In this vocabulary,
    that number can stand for any token. If a file does not ask for a BOS token, it passes this check.
    """
    vocabulary = read_gguf(file)
    fields = vocabulary.metadata
    adds, bos = fields.get("tokenizer.ggml.add_bos_token"), fields.get("tokenizer.ggml.bos_token_id")
    tokens, kind = fields.get("tokenizer.ggml.tokens"), vocabulary.text("tokenizer.ggml.model")
    wanted = kind in _ADDING if adds is None else bool(adds)
    if not wanted:
        return
    if bos is None:
        raise Refused(
            "its tokenizer adds a BOS and no BOS token is named, so llama.cpp would put another token there: "
            "ask upstream to name bos_token in tokenizer_config.json"
        )
    number, count = int(bos), len(tokens or ())
    if number >= count:
        raise Refused(
            f"its tokenizer adds a BOS, token {number}, and its vocabulary ends at {count - 1}: ask upstream to "
            "correct bos_token_id in config.json"
        )
