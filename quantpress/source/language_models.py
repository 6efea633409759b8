"""Finds out from a config.json whether a model is a language model that transformers loads whole.

The yardstick (perplexity and divergence) needs a model that writes text token by token. If config.json names another
architecture, transformers still loads a language model, but fills its head with random numbers, or drops the head that
the model has. The tables of language models are read from transformers' source code, because importing transformers
takes seconds and a plan must be faster.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from quantpress.errors import Refused
from quantpress.text import one_line

_FILE = "transformers/models/auto/modeling_auto.py"
#: The tables map a model type to the class of its language model. The class of the second and third table also reads
#: images or sound.
_PLAIN = "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"
_MULTIMODAL = ("MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES", "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES")
#: A class with such a name writes text, even if transformers does not have it (``LLaMAForCausalLM`` of old
#: repositories). transformers loads the class of the model type in its place.
_WRITES = ("forcausallm", "lmheadmodel")
#: This file describes the steps of a sentence-transformers model: a transformer, and a pooling that makes one vector of
#: a text (https://sbert.net, "Creating Custom Models").
EMBEDDING_FILE = "modules.json"
_ADVICE = "leave the model out of the catalog"


def require_language_model(config: Mapping[str, Any], paths: Collection[str] = ()) -> None:
    """Raises :class:`Refused` if a source is not a language model that transformers loads whole. ``paths`` are the
    paths of the source's files.

    A config.json without ``architectures`` names no other model than the language model of its type.
    """
    if EMBEDDING_FILE in paths:
        raise Refused(f"its {EMBEDDING_FILE} makes it an embedding model, and only language models are made: {_ADVICE}")
    plain, multimodal = _classes()
    if not plain:
        return
    kind, named = config.get("model_type"), _architectures(config)
    if isinstance(kind, str) and kind not in plain and kind not in multimodal:
        raise Refused(f"transformers has no language model for the model type {one_line(kind)!r}: {_ADVICE}")
    if not named:
        return
    known = {name.lower() for name in (*plain.values(), *multimodal.values())}
    if not any(name.lower() in known or name.lower().endswith(_WRITES) for name in named):
        raise Refused(f"{one_line(named[0])} is {_kind_of(named[0])}, and only language models are made: {_ADVICE}")
    if config.get("is_encoder_decoder") is True:
        raise Refused(f"{one_line(named[0])} is an encoder with a decoder, and only decoders are made: {_ADVICE}")


def require_plain_language_model(config: Mapping[str, Any], what: str) -> None:
    """Raises :class:`Refused` if the tool ``what`` would drop a part of the model, because the tool loads the language
    model alone and the source also reads images or sound."""
    plain, multimodal = _classes()
    kind, named = config.get("model_type"), _architectures(config)
    whole = multimodal.get(kind) if isinstance(kind, str) else None
    if whole is None or plain.get(str(kind)) == whole:
        return
    if kind not in plain or whole in named:
        raise Refused(f"{what} loads language models alone, not all of this {whole}: use gguf")


def _architectures(config: Mapping[str, Any]) -> list[str]:
    named = config.get("architectures")
    return [name for name in named if isinstance(name, str)] if isinstance(named, list) else []


def _kind_of(name: str) -> str:
    """Returns what a class is, from the endings by which transformers names classes."""
    plain = name.lower()
    if "classification" in plain or "reward" in plain:
        return "a classifier"
    if "maskedlm" in plain or "pretraining" in plain:
        return "an encoder"
    if plain.endswith(("model", "embedding", "forretrieval", "encoder")):
        return "a model without a language head, as embedding models are"
    return "no language model that transformers knows"


@cache
def _classes() -> tuple[dict[str, str], dict[str, str]]:
    """Returns two dicts from a model type to its class: of the language model alone, and of the model that also reads
    images or sound. Both are empty if transformers is not installed or has no such tables."""
    try:
        path = Path(str(distribution("transformers").locate_file(_FILE)))
    except PackageNotFoundError:
        return {}, {}
    code = path.read_text(encoding="utf-8") if path.is_file() else ""
    tree = ast.parse(code)
    return dict(_pairs(tree, _PLAIN)), {kind: name for table in _MULTIMODAL for kind, name in _pairs(tree, table)}


def _pairs(tree: ast.Module, table: str) -> Iterator[tuple[str, str]]:
    """Yields the pairs of texts that the code assigns to ``table``."""
    for node in tree.body:
        if not (
            isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == table for to in node.targets)
        ):
            continue
        for part in ast.walk(node.value):
            match part:
                case ast.Tuple(elts=[ast.Constant(value=str(kind)), ast.Constant(value=str(name))]):
                    yield kind, name
