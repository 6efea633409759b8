"""Reads from GPTQModel's source code which architectures the installed GPTQModel knows.

Importing GPTQModel takes some ten seconds, because GPTQModel imports torch and transformers. That is too slow for a
plan. So this module reads the table ``MODEL_MAP`` of ``gptqmodel/models/auto.py`` without importing the file. The table
is a dict whose keys are values of ``model_type``. Later assignments in the file add items to the dict.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

_TABLE = "MODEL_MAP"


@cache
def architectures() -> frozenset[str]:
    """Returns the ``model_type`` of each architecture that GPTQModel knows. The set is empty if GPTQModel is not
    installed or has no table of this name."""
    try:
        path = Path(str(distribution("gptqmodel").locate_file("gptqmodel/models/auto.py")))
    except PackageNotFoundError:
        return frozenset()
    return keys_of(path.read_text(encoding="utf-8"), _TABLE) if path.is_file() else frozenset()


def keys_of(source: str, table: str) -> frozenset[str]:
    """Returns the string keys of the dict named ``table`` in the Python code ``source``. This includes keys that later
    assignments add."""
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
