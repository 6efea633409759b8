"""Reads the YAML front matter of a model's or dataset's card. Derives tags and card data as the Hub does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from quantpress.localhub.frontmatter import CardInvalid, load

# Matches the block between the first two "---" lines, like REGEX_YAML_BLOCK in huggingface_hub/repocard.py.
_FRONT_MATTER = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)(?:(?<=\n)|\r?\n)---[ \t]*(?:\r?\n|\Z)", re.DOTALL)

MAX_CARD_BYTES = 2 * 1024 * 1024

#: Keys of a dataset's card that become tags ``key:value``. Users find the dataset by these tags.
_DATASET_KEYS = (
    "annotations_creators", "language_creators", "language", "license", "multilinguality", "size_categories",
    "source_datasets", "task_categories", "task_ids",
)  # fmt: skip

_RELATIONS = ("adapter", "merge", "quantized", "finetune")


@dataclass(frozen=True)
class Card:
    """A card.

    ``data`` is the front matter, or None if there is none. ``text`` is the Markdown after the front matter.
    """

    data: dict[str, Any] | None
    text: str


def parse_card(content: str) -> Card:
    """Splits a card into metadata and text. Raises CardInvalid if the metadata is invalid."""
    match = _FRONT_MATTER.match(content)
    if match is None:
        return Card(None, content)
    data = load(match.group(1))
    if data is None:
        return Card({}, content[match.end() :])
    if not isinstance(data, dict):
        raise CardInvalid("the metadata is not a mapping")
    return Card(data, content[match.end() :])


def read_card(content: bytes) -> Card:
    """Splits a card that is already published into metadata and text.

    Treats invalid metadata as missing, where parse_card raises CardInvalid.
    """
    text = content.decode(errors="replace")
    try:
        return parse_card(text)
    except CardInvalid:
        return Card(None, _FRONT_MATTER.sub("", text, count=1))


def texts(value: object) -> list[str]:
    """Returns the strings of a value of the metadata.

    A string gives a list of this one string. A list gives its strings. Anything else gives an empty list.
    """
    if isinstance(value, str):
        return [value]
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def faults(data: Mapping[str, Any]) -> list[str]:
    """Returns the faults of a card's metadata, one line each. The Hub would refuse a card with any of these."""
    found = []
    for key in ("license", "language", "tags", "base_model", "datasets", "metrics"):
        value = data.get(key)
        if value is not None and len(texts(value)) != (len(value) if isinstance(value, list) else 1):
            found.append(f'"{key}" must be a string or a list of strings')
    for key in ("pipeline_tag", "library_name", "base_model_relation", "license_name", "license_link"):
        if data.get(key) is not None and not isinstance(data[key], str):
            found.append(f'"{key}" must be a string')
    relation = data.get("base_model_relation")
    if isinstance(relation, str) and relation not in _RELATIONS:
        found.append(f'"base_model_relation" must be one of {", ".join(_RELATIONS)}')
    return found


def tags(data: Mapping[str, Any], paths: Iterable[str]) -> list[str]:
    """Returns the tags that the Hub derives from a model's card and files.

    Users find the model by these tags.
    """
    endings = {path.rpartition(".")[2].lower() for path in paths}
    result = [*texts(data.get("library_name")), *(end for end in ("gguf", "safetensors") if end in endings)]
    result += [*texts(data.get("pipeline_tag")), *texts(data.get("tags")), *texts(data.get("language"))]
    result += [f"dataset:{name}" for name in texts(data.get("datasets"))]
    relation = data.get("base_model_relation")
    for base in texts(data.get("base_model")):
        result.append(f"base_model:{base}")
        if isinstance(relation, str):
            result.append(f"base_model:{relation}:{base}")
    result += [f"license:{name}" for name in texts(data.get("license"))]
    return list(dict.fromkeys(result))


def dataset_tags(data: Mapping[str, Any]) -> list[str]:
    """Returns the tags that the Hub derives from a dataset's card.

    Users find the dataset by these tags.
    """
    result = [f"{key}:{value}" for key in _DATASET_KEYS for value in texts(data.get(key))]
    return list(dict.fromkeys([*result, *texts(data.get("tags"))]))
