"""Finds the model types that the installed transformers knows.

They are read from transformers' source code, because importing transformers takes seconds and a plan must be faster.
The table of model types is ``CONFIG_MAPPING_NAMES`` in ``transformers/models/auto``. The code fills the table with
pairs of a model type and its class, and later adds dicts from model type to class.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from quantpress.errors import Refused

_TABLE = "CONFIG_MAPPING_NAMES"
_FILES = ("transformers/models/auto/auto_mappings.py", "transformers/models/auto/configuration_auto.py")


def require_known_type(config: Mapping[str, Any]) -> None:
    """Raises :class:`Refused` if transformers does not know the ``model_type`` of a config.json.

    Every format is compared to the unquantized model. Without transformers, the unquantized model cannot be measured.
    """
    model_type, known = config.get("model_type"), known_types()
    if isinstance(model_type, str) and known and model_type not in known:
        raise Refused(
            f"transformers {distribution('transformers').version} does not know the model type {model_type!r}, so the "
            "unquantized model cannot be measured: skip the model in the catalog until transformers knows it"
        )


@cache
def known_types() -> frozenset[str]:
    """Returns every known ``model_type``. The result is empty if transformers is not installed or has no such table."""
    try:
        paths = [Path(str(distribution("transformers").locate_file(name))) for name in _FILES]
    except PackageNotFoundError:
        return frozenset()
    return frozenset(name for path in paths if path.is_file() for name in types_in(path.read_text(encoding="utf-8")))


def types_in(source: str) -> Iterator[str]:
    """Yields the model types that Python code puts into the table. ``source`` is the code."""
    for node in ast.walk(ast.parse(source)):
        assigned = isinstance(node, ast.Assign) and any(_is_table(target) for target in node.targets)
        updated = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_table(node.func.value)
        if not (assigned or updated):
            continue
        for part in ast.walk(node):
            keys = part.elts[:1] if isinstance(part, ast.Tuple) else part.keys if isinstance(part, ast.Dict) else []
            yield from (key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str))


def _is_table(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == _TABLE
