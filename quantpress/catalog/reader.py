"""Reads ``catalog.yaml``. An error names the line of each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from quantpress.catalog.schema import (
    CalibrationLine,
    Catalog,
    Defaults,
    GateLine,
    ModelLine,
    PositionedError,
    suggestion,
)
from quantpress.errors import BadInput
from quantpress.text import one_line

KeyPath = tuple[str | int, ...]


def load_catalog(path: Path) -> Catalog:
    """Returns the validated catalog.

    Raises :class:`BadInput` with one line per mistake: the file, the line in it, the mistake, and a remedy.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); give the catalog with --catalog") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path}: is not UTF-8 text") from None
    return parse_catalog(text, str(path))


def parse_catalog(text: str, name: str) -> Catalog:
    """Does the same as :func:`load_catalog`, but reads the catalog from ``text``. Errors name the file ``name``."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse_duplicate_keys(root, name)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise BadInput(f"{name}:{line}: not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadInput(f"{name}:1: not valid YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(data, dict):
        raise BadInput(f"{name}:1: expected a mapping with the key 'models', a list of model repositories")
    try:
        return Catalog.model_validate(data)
    except ValidationError as error:
        lines = [_explain(detail, root, name) for detail in error.errors()]
        raise BadInput("\n".join(dict.fromkeys(lines))) from None


def _refuse_duplicate_keys(node: yaml.Node | None, name: str) -> None:
    """Raises :class:`BadInput` for a duplicate key, because YAML lets a later key silently replace an earlier key."""
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise BadInput(f"{name}:{key.start_mark.line + 1}: key {key.value!r} is given twice: keep one")
                seen.add(key.value)
            children.append(value)
    elif isinstance(node, yaml.SequenceNode):
        children = list(node.value)
    for child in children:
        _refuse_duplicate_keys(child, name)


def _explain(detail: ErrorDetails, root: yaml.Node | None, name: str) -> str:
    place: KeyPath = tuple(part for part in detail["loc"] if part != "[key]")
    message = detail["msg"].removeprefix("Value error, ")
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, PositionedError):
        place += cause.place
    elif detail["type"] == "extra_forbidden":
        model = _model_at(place[:-1])
        message = f"unknown key {str(place[-1])!r}{suggestion(str(place[-1]), model.model_fields)}"
    elif place:
        message = f"{_dotted(place)}: {message}"
    return f"{name}:{_line_of(place, root)}: {message}"


def _model_at(place: KeyPath) -> type[BaseModel]:
    """Returns the pydantic class that validates the mapping at ``place``."""
    if place and place[-1] == "calibration":
        return CalibrationLine
    if len(place) > 1 and place[-2] == "gates":
        return GateLine
    if place and place[0] == "models":
        return ModelLine
    return Defaults if place and place[0] == "defaults" else Catalog


def _dotted(place: KeyPath) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{one_line(part)}"
    return text.lstrip(".")


def _line_of(place: KeyPath, root: yaml.Node | None) -> int:
    """Returns the line, counted from 1, of the deepest part of ``place`` that exists in the catalog's text."""
    node, line = root, 1
    for part in place:
        entry = _child(node, part)
        if entry is None:
            break
        line, node = entry
    return line


def _child(node: yaml.Node | None, part: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key.start_mark.line + 1, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        child = node.value[part]
        return child.start_mark.line + 1, child
    return None


def schema() -> dict[str, Any]:
    """Returns the catalog's JSON schema, for editors. ``make schema`` writes the schema to ``catalog.schema.json``."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Catalog.model_json_schema(),
        "title": "quantpress catalog",
    }
