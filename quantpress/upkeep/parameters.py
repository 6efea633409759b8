"""Checks the parameters of a recipe from a manifest before a quantizer gets them.

Anybody can write a manifest. Quantizers hand parameters to libraries as names of classes, types and options. So a
manifest can choose among what this version's own variants use, and set numbers. It cannot name anything else.
"""

from __future__ import annotations

from typing import Any

from quantizers.protocol import Parameters, Quantizer
from quantpress.errors import BadInput, Refused
from quantpress.record.recipe import Recipe
from quantpress.text import one_line


def require_known(chosen: Quantizer, recipe: Recipe, config: Parameters) -> None:
    """Raises :class:`BadInput` unless every parameter is one that the format has, with a value of a known kind.

    A number can be any number, because a format's defaults change. Every other value must be the value of that
    parameter in one of the variants that the format has for this model. ``config`` is the model's config.json.
    """
    known = _known(chosen, recipe.variant, config)
    for key, value in recipe.parameters.items():
        if not any(_fits(value, each) for each in known.get(key, [])):
            raise BadInput(
                f"the recipe of {recipe.variant} has the parameter {one_line(key)} = {one_line(repr(value))}, which "
                f"{recipe.format} does not have here: another version of quantpress made it, or somebody changed it"
            )


def _known(chosen: Quantizer, variant: str, config: Parameters) -> dict[str, list[Any]]:
    """Returns a dict from parameter to its values in all variants of the format that the model can have."""
    known: dict[str, list[Any]] = {}
    for name in dict.fromkeys([variant, *(name for ladder in chosen.ladders().values() for name in ladder)]):
        try:
            parameters = chosen.variant(name, config).parameters
        except (BadInput, Refused):
            continue
        for key, value in parameters.items():
            known.setdefault(key, []).append(value)
    return known


def _fits(value: Any, known: Any) -> bool:
    if _is_number(value) and _is_number(known):
        return True
    return type(value) is type(known) and bool(value == known)


def _is_number(value: Any) -> bool:
    # In Python, a bool is an int. A switch must have the known value.
    return isinstance(value, int | float) and not isinstance(value, bool)
