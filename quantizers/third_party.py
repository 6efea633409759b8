"""Finds formats that other packages provide. For each of its formats, a package has an entry point in the group
``quantpress.quantizers``, with the name of the format.

An entry point is loaded only when its format is needed. If an entry point cannot be used, only its format fails, with a
one-line error that names the package.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from quantpress.errors import BadInput

if TYPE_CHECKING:
    from quantizers.protocol import Quantizer

GROUP = "quantpress.quantizers"
#: What a format's name can be. The name is restricted because it becomes a part of file names and folder names.
_NAME = re.compile(r"[a-z0-9]+(?:[-.][a-z0-9]+)*")


@cache
def entry_points() -> dict[str, list[metadata.EntryPoint]]:
    """Returns a dict from a format's name to the entry points with this name, one per package.

    Entry points with invalid names are left out. If a package is in two folders of the search path, only the first
    counts, because Python imports the first. The entry points are read once per process.
    """
    found: dict[str, dict[str, metadata.EntryPoint]] = {}
    for point in sorted(metadata.entry_points(group=GROUP), key=lambda point: point.name):
        found.setdefault(point.name, {}).setdefault(_package(point), point)
    return {name: list(points.values()) for name, points in found.items() if _NAME.fullmatch(name)}


def load(name: str) -> Quantizer:
    """Returns the quantizer of a format that another package provides.

    Raises :class:`BadInput` if two packages claim the format, if the entry point cannot be imported, or if the object
    of the entry point is not a quantizer of this format. The message names the package.
    """
    points = entry_points()[name]
    if len(points) > 1:
        packages = " and ".join(_package(point) for point in points)
        raise BadInput(f"format {name!r} is given by {packages}: uninstall all but one of them")
    point = points[0]
    where = f"format {name!r} of package {_package(point)}"
    try:
        made = point.load()()
    except Exception as error:  # an exception in another package's code must not crash the press
        reason = (str(error).splitlines() or [""])[0]
        raise BadInput(
            f"{where} cannot be loaded ({type(error).__name__}: {reason}): repair or uninstall the package"
        ) from None
    missing = [member for member in _members() if not hasattr(made, member)]
    if missing:
        raise BadInput(
            f"{where} is not a quantizer because {point.value} lacks {', '.join(missing)}: see docs/add-a-format.md"
        )
    if made.format != name:
        raise BadInput(f"{where} calls itself {made.format!r}: its entry point must have that name")
    found: Quantizer = made
    return found


def mistakes(built_in: list[str]) -> list[str]:
    """Returns a message of one line for each entry point that is never used. An entry point is never used if its name
    belongs to a ``built_in`` format or cannot be the name of a format."""
    lines = set()
    for point in metadata.entry_points(group=GROUP):
        where = f"format {point.name!r} of package {_package(point)} is not used"
        if point.name in built_in:
            lines.add(f"{where}: quantpress has its own of that name")
        elif not _NAME.fullmatch(point.name):
            lines.add(f"{where}: its name may have lower-case letters, digits, and single - and . between them")
    return sorted(lines)


def template_folders(name: str) -> list[Path]:
    """Returns the folders in which the card's template of a format can lie, if another package provides the format.

    These are the folders ``templates`` in the Python package that the entry point names. The list is empty for formats
    of quantpress.
    """
    folders = []
    for point in entry_points().get(name, ()):
        found = find_spec(point.module.partition(".")[0])
        folders += [Path(place) / "templates" for place in (found.submodule_search_locations or () if found else ())]
    return folders


def _package(point: metadata.EntryPoint) -> str:
    return point.dist.name if point.dist else point.value


def _members() -> list[str]:
    from quantizers.protocol import Quantizer

    declared = [name for name in vars(Quantizer) if not name.startswith("_")]
    return sorted({*declared, *Quantizer.__annotations__})
