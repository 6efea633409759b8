"""Code that several commands share: common options, and functions that read the catalog and the settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from quantpress.terminal import say

if TYPE_CHECKING:
    from quantpress.catalog.schema import Catalog
    from quantpress.settings import Settings

DEFAULT_CATALOG = Path("catalog.yaml")

CatalogOption = Annotated[Path, typer.Option("--catalog", help="the catalog file", envvar="QUANTPRESS_CATALOG")]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON")]
OnlyOption = Annotated[str | None, typer.Option("--only", metavar="REPO", help="one model of the catalog")]
FormatsOption = Annotated[str | None, typer.Option("--formats", metavar="A,B", help="only these formats, by comma")]


def load(path: Path) -> tuple[Catalog, Settings]:
    """Returns the catalog, and the settings from the environment and the catalog.

    Prints to standard error which formats of other packages are not used because of their names.
    """
    from quantizers import mistakes
    from quantpress.catalog.reader import load_catalog
    from quantpress.settings import load_settings

    for mistake in mistakes():
        say(f"quantpress: {mistake}", error=True)
    catalog = load_catalog(path)
    return catalog, load_settings(catalog.settings)


def load_optional(path: Path) -> tuple[Catalog | None, Settings]:
    """Does the same as :func:`load`, for commands that do not need a catalog.

    If ``path`` is the default catalog and does not exist, returns None and the settings from the environment.
    """
    from quantpress.settings import load_settings

    if path == DEFAULT_CATALOG and not path.exists():
        return None, load_settings({})
    return load(path)


def by_comma(text: str | None) -> list[str] | None:
    """Splits an option such as ``A,B`` into words. Returns None if the option was not given."""
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def from_fields(command: Callable[[Any], None]) -> Callable[..., None]:
    """Turns a function that takes a dataclass of options into a command for Typer, with one parameter per option."""
    (parameter,) = inspect.signature(command, eval_str=True).parameters.values()
    options = parameter.annotation
    hints = get_type_hints(options, include_extras=True)

    @wraps(command)
    def run(**given: object) -> None:
        command(options(**given))

    empty = inspect.Parameter.empty
    asked = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(options)
    ]
    # Typer calls inspect.signature, which reads this attribute before it looks at the function.
    run.__signature__ = inspect.Signature(asked)  # type: ignore[attr-defined]
    run.__annotations__ = hints
    return run
