"""Finds out whether a checkpoint's head (the output layer) is tied to its token embeddings, from its files.

A config.json can say that they are tied while the files hold another head. transformers and llama.cpp then use the head
in the files, and vLLM skips it. So the config.json that is published says what the files hold.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantpress.source.safetensors import sound_header
from quantpress.source.safetensors_header import SafetensorsTensor

_TIED = "tie_word_embeddings"
_HEAD = "lm_head.weight"
#: How the architectures of transformers name their token embeddings (Llama and most others; GPT-2; GPT-NeoX; BLOOM).
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
#: The number of bytes of each tensor that are compared at a time.
_PIECE = 1 << 24


def tied_as_stored(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Returns ``config`` as it is true of the checkpoint in ``folder``.

    If it says that the head is tied, and the files hold another head, it says the opposite. A model of several parts
    can say it in the part that describes the language model.
    """
    text = config.get("text_config")
    says = [part for part in (config, text) if isinstance(part, dict) and part.get(_TIED) is True]
    if not says or not has_own_head(folder):
        return config
    changed = {key: {**text, _TIED: False} for key in ("text_config",) if isinstance(text, dict) and text in says}
    return config | changed | ({_TIED: False} if _TIED in config else {})


def has_own_head(folder: Path) -> bool:
    """Whether the files of a checkpoint hold a head that differs from the token embeddings. False if they hold no
    unquantized head, or no embeddings to compare it with."""
    tensors = [tensor for file in sorted(folder.glob("*.safetensors")) for tensor in sound_header(file).tensors]
    head = next((tensor for tensor in tensors if tensor.name.endswith(_HEAD)), None)
    embeddings = next((tensor for tensor in tensors if tensor.name.endswith(_EMBEDDINGS)), None)
    return head is not None and embeddings is not None and not _equal(head, embeddings)


def _equal(one: SafetensorsTensor, other: SafetensorsTensor) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    with one.file.open("rb") as first, other.file.open("rb") as second:
        first.seek(one.begin)
        second.seek(other.begin)
        left = one.end - one.begin
        while left:
            piece = min(left, _PIECE)
            if first.read(piece) != second.read(piece):
                return False
            left -= piece
    return True
