"""The commands for variants that are already published: ``retract`` and ``rebuild``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from quantpress.cli.commands.options import DEFAULT_CATALOG, CatalogOption, JsonOption, from_fields, load_optional
from quantpress.errors import QuantpressError
from quantpress.terminal import say


def retract(
    repo: Annotated[str, typer.Argument(help="published repository")],
    variant: Annotated[str, typer.Argument(help="the variant to withdraw")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="why; goes to the card and the manifest")],
    catalog: CatalogOption = DEFAULT_CATALOG,
    as_json: JsonOption = False,
) -> None:
    """Withdraws a published variant. Its files leave the branch. Its record stays, with the reason."""
    from quantpress.hub.hubs import hubs
    from quantpress.upkeep.retract import retract as withdraw

    _, settings = load_optional(catalog)
    done = withdraw(hubs(settings), repo, variant, reason, settings)
    for warning in done.warnings:
        say(f"quantpress: {warning}", error=True)
    if as_json:
        say(json.dumps(asdict(done), indent=2))
        return
    for branch, commit in done.commits.items():
        say(f"{repo}@{branch}: {variant} is retracted, commit {commit}")


@dataclass(frozen=True)
class RebuildOptions:
    """The command-line options of ``rebuild``."""

    repo: Annotated[str, typer.Argument(help="published repository")]
    variant: Annotated[str, typer.Argument(help="the variant to make again")]
    revision: Annotated[str, typer.Option(help="branch, tag or commit whose manifest is read")] = "main"
    out: Annotated[Path | None, typer.Option(help="folder to keep the files in; default: remove them")] = None
    calibration_text: Annotated[
        Path | None, typer.Option(help="the text it was calibrated on, if not WikiText-2 or the offline text")
    ] = None
    any_toolchain: Annotated[
        bool, typer.Option("--any-toolchain", help="go on even if tools have other versions than in the recipe")
    ] = False
    catalog: CatalogOption = DEFAULT_CATALOG
    as_json: JsonOption = False


@from_fields
def rebuild(asked: RebuildOptions) -> None:
    """Makes a published variant again from its manifest, and compares the bytes. Exits with 0 if equal, 1 if not."""
    from quantpress.hub.hubs import hubs
    from quantpress.upkeep.rebuild import RebuildOrder
    from quantpress.upkeep.rebuild import rebuild as make_again

    loaded, settings = load_optional(asked.catalog)
    lines = [loaded.defaults.calibration, *(line.calibration for line in loaded.models)] if loaded else []
    configured = [Path(line.text) for line in lines if line is not None and line.text is not None]
    order = RebuildOrder(
        repo_id=asked.repo,
        variant=asked.variant,
        revision=asked.revision,
        texts=tuple(dict.fromkeys([asked.calibration_text] if asked.calibration_text else configured)),
        any_toolchain=asked.any_toolchain,
        out=asked.out,
    )
    done = make_again(hubs(settings), order, settings, lambda what: say(what, error=True))
    if asked.as_json:
        say(json.dumps(asdict(done), indent=2))
    else:
        for difference in done.other_tools:
            say(f"another toolchain: {difference}")
        for file in done.files:
            say(f"{file.path}  {'equal' if file.equal else 'different'}  {file.rebuilt or 'was not made'}")
    if done.different:
        raise QuantpressError(
            f"{asked.variant} of {asked.repo}: {len(done.different)} of {len(done.files)} files are not what the "
            "manifest says"
        )
