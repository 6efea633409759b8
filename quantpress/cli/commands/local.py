"""The command that makes variants without publishing them: ``quantize``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from quantpress.cli.commands.options import DEFAULT_CATALOG, CatalogOption, JsonOption, by_comma, load_optional
from quantpress.errors import QuantpressError
from quantpress.terminal import say


def quantize(
    model: Annotated[str, typer.Argument(metavar="PATH_OR_REPO", help="a folder, or a repository of the source Hub")],
    out: Annotated[Path, typer.Option(help="folder to fill; it must be empty or not exist yet")],
    format_name: Annotated[str, typer.Option("--format", help="what to make")] = "gguf",
    variants: Annotated[
        str | None, typer.Option(metavar="A,B", help="variants or ladders, by comma; default: the format's choice")
    ] = None,
    catalog: CatalogOption = DEFAULT_CATALOG,
    as_json: JsonOption = False,
) -> None:
    """Quantizes and measures a model without publishing it. Writes files, manifest and card to a folder."""
    from quantpress.catalog.schema import Catalog
    from quantpress.cli.tables import print_variants
    from quantpress.hub.hubs import source_hub
    from quantpress.press.local import Order
    from quantpress.press.local import quantize as make

    loaded, settings = load_optional(catalog)
    order = Order(model, format_name, by_comma(variants) or [], out)
    done = make(
        order,
        loaded or Catalog(models=[]),
        settings,
        lambda: source_hub(settings),
        lambda what: say(what, error=True),
    )
    if as_json:
        say(json.dumps([row.model_dump(mode="json") for row in done.rows], indent=2))
    elif done.rows:
        print_variants(str(out), done.rows)
    if done.failures:
        raise QuantpressError("\n".join(done.failures))
