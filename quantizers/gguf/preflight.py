"""Finds, before the model is converted, what would make a GGUF ladder fail hours later or be silently wrong."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

from quantizers.gguf.convert import convert_vocabulary
from quantizers.gguf.unquantized import UnquantizedType
from quantpress.errors import Refused
from quantpress.machine.memory import available_memory
from quantpress.source.gguf import read_gguf
from quantpress.source.weights import WeightsReport, check_weights
from quantpress.toolchain.llama_cpp import LlamaCpp

#: Bytes of memory per element of the largest tensor while the converter holds it. The converter holds it as stored, in
#: float32, in float32 a second time if experts were stacked (its lazy tensors keep what they are made of), and as it is
#: written.
_CONVERTING = 12
#: Bytes of the converter's Python with torch and transformers. Measured: the converter takes 0.50 GB for a model of
#: 35 M weights with a largest tensor of 28 M and a vocabulary of 49152.
_PROGRAM = 1_000_000_000
#: Bytes per weight of the unquantized model, which transformers measures in float32 on a CPU. llama.cpp's tools map the
#: unquantized GGUF and need no more.
_MEASURING = 4
#: Bytes in addition to those weights: Python with torch and transformers, a pass's activations, and its logits (2048
#: positions at most; if half of them are kept, 1.1 GB for 262144 tokens, the largest vocabulary in use).
_BESIDE_WEIGHTS = 2_000_000_000
#: The tokenizers SPM and WPM. llama.cpp puts a BOS before their text unless the file says otherwise
#: (src/llama-vocab.cpp).
_ADDING = ("llama", "bert")


def check_source(
    tools: LlamaCpp, source: Path, model_name: str, storage: UnquantizedType, device: Literal["cpu", "cuda"]
) -> None:
    """Raises :class:`Refused`, in one line that says what to do, if no GGUF ladder can be made from the source.

    It checks that the weights are complete, finite, and finite in ``storage`` (the unquantized GGUF's type). It checks
    the memory, whether the converter knows the architecture and the tokenizer, and the BOS.
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


def memory_needed(weights: WeightsReport, device: Literal["cpu", "cuda"]) -> int:
    """The bytes of RAM that are needed: for the converter's largest tensor, or on a CPU for measuring the unquantized
    model, whichever is more.

    On CUDA the model lies in the GPU's memory, which the plan checks (:func:`quantpress.plan.devices.require_device`).
    """
    measuring = _MEASURING * weights.weights + _BESIDE_WEIGHTS if device == "cpu" else 0
    return max(measuring, _PROGRAM + _CONVERTING * weights.largest_tensor)


def require_memory(needed: int, available: int) -> None:
    """Raises :class:`Refused` when fewer than ``needed`` bytes are ``available``."""
    if needed > available:
        raise Refused(
            f"{needed / 1e9:.1f} GB of memory are needed for the unquantized model and {available / 1e9:.1f} GB are "
            "available: end other programs, or press it on a machine with more"
        )


def check_bos(file: Path) -> None:
    """Raises :class:`Refused` when a GGUF file asks for a BOS before each text and names no valid token for it.

    If no token is named, llama.cpp takes a fixed number (11 for BPE, 1 for SPM), which can be any token in this
    vocabulary. A model that adds no BOS needs none.
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
