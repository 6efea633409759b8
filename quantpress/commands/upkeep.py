"""Commands that look after what is published: ``retract``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from quantpress.commands.options import DEFAULT_CATALOG, CatalogOption, JsonOption, load_optional


def retract(
    repo: Annotated[str, typer.Argument(help="published repository")],
    variant: Annotated[str, typer.Argument(help="the variant to withdraw")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="why; it goes to the card and the manifest")],
    catalog: CatalogOption = DEFAULT_CATALOG,
    as_json: JsonOption = False,
) -> None:
    """Withdraws a published variant: its files leave the branch, its record stays, with the reason."""
    from quantpress.hub import hub_client
    from quantpress.retract import retract as withdraw

    _, settings = load_optional(catalog)
    hubs = hub_client(settings.target_endpoint), hub_client(settings.source_endpoint)
    done = withdraw(*hubs, repo, variant, reason, settings)
    if done.warning:
        typer.echo(f"quantpress: {done.warning}", err=True)
    if as_json:
        typer.echo(json.dumps(asdict(done), indent=2))
        return
    for branch, commit in done.commits.items():
        typer.echo(f"{repo}@{branch}: {variant} is retracted, commit {commit}")
