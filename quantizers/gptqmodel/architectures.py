"""The architectures that the installed GPTQModel knows, read from its source.

Importing it takes some ten seconds, for torch and transformers come with it; a plan must not. What is read is the
table ``MODEL_MAP`` of ``gptqmodel/models/auto.py``: a dict with a ``model_type`` per key, and items added below it.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

_TABLE = "MODEL_MAP"


@cache
def architectures() -> frozenset[str]:
    """The ``model_type`` of each; empty where GPTQModel is not installed or has no such table."""
    try:
        path = Path(str(distribution("gptqmodel").locate_file("gptqmodel/models/auto.py")))
    except PackageNotFoundError:
        return frozenset()
    return keys_of(path.read_text(encoding="utf-8"), _TABLE) if path.is_file() else frozenset()


def keys_of(source: str, table: str) -> frozenset[str]:
    """The string keys of the dict that Python ``source`` gives the name ``table``, items set later included."""
    found: set[ast.expr | None] = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            if _is_name(target, table) and isinstance(node.value, ast.Dict):
                found |= set(node.value.keys)
            elif isinstance(target, ast.Subscript) and _is_name(target.value, table):
                found.add(target.slice)
    return frozenset(key.value for key in found if isinstance(key, ast.Constant) and isinstance(key.value, str))


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name
