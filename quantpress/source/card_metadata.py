"""Reads the metadata of a source's card that our cards inherit.

Everybody can write anything there. ``language: no``, for example, is ``False`` in YAML. So a value of another type is
left out, and blocks nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

from quantpress.foreign_json import Foreign, problem_of

#: Characters of a text. The longest are addresses of licences. The terms of a gated source are read in
#: :mod:`quantpress.source.gate_fields`.
_LONGEST_TEXT = 2_000
#: Some speech models name more than 1,000 languages.
_LONGEST_LIST = 5_000


def _text(value: object) -> str | None:
    is_text = isinstance(value, str) and len(value) <= _LONGEST_TEXT and problem_of(value) is None
    return str(value) if is_text else None


def _texts(value: object) -> list[str]:
    listed = value if isinstance(value, list) else [value]
    return [text for each in listed[:_LONGEST_LIST] if (text := _text(each)) is not None]


Text = Annotated[str | None, BeforeValidator(_text)]
#: One text, or a list of texts.
Texts = Annotated[list[str], BeforeValidator(_texts)]


class CardMetadata(Foreign):
    """The part of a card's metadata that our cards inherit. ``license`` can name several licences."""

    language: Texts = []
    license: Texts = []
    license_name: Text = None
    license_link: Text = None
    pipeline_tag: Text = None
    tags: Texts = []


def card_metadata(card: Mapping[str, Any]) -> CardMetadata:
    """Returns the texts in a card's metadata that are texts. Raises nothing."""
    return CardMetadata.model_validate(card)
