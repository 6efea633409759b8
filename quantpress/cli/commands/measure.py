"""The commands that measure and compare models: ``evaluate`` and ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from quantpress.cli.commands.options import DEFAULT_CATALOG, CatalogOption, JsonOption, by_comma, load_optional
from quantpress.terminal import say


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="PATH_OR_REPO",
            help="a checkpoint folder, a .gguf file, or a repository: ns/name, ns/name@branch, ns/name:Q4_K_M",
        ),
    ],
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="PATH_OR_REPO", help="the unquantized model, to measure divergence from"),
    ] = None,
    catalog: CatalogOption = DEFAULT_CATALOG,
    as_json: JsonOption = False,
) -> None:
    """Measures a model of any format under the protocol: quality, memory, speed."""
    from quantpress.cli.tables import print_evaluation
    from quantpress.evaluation.measure import measure
    from quantpress.evaluation.target import find_target
    from quantpress.evaluation.text import evaluation_text
    from quantpress.evaluation.wikitext import fetch_if_reachable
    from quantpress.hub.hubs import hubs

    _, settings = load_optional(catalog)
    both = hubs(settings)
    targets = find_target(model, both), find_target(base, both) if base else None
    archive = None
    if settings.evaluation_text is None:
        archive = fetch_if_reachable(settings, lambda what: say(f"quantpress: {what}", error=True))
    text = evaluation_text(settings.evaluation_text, settings.home / "texts", archive)
    found = measure(targets[0], text, settings, targets[1])
    if as_json:
        say(found.model_dump_json(indent=2))
    else:
        print_evaluation(found)


def report(
    model: Annotated[str, typer.Option("--model", metavar="REPO", help="a model of the catalog, or its name alone")],
    formats: Annotated[str, typer.Option("--format", metavar="A,B", help="md, html, json, csv")] = "md",
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="folder to write to; default: print")] = None,
    catalog: CatalogOption = DEFAULT_CATALOG,
) -> None:
    """Compares all published formats and variants of a model, from their manifests on the target Hub."""
    from quantpress.comparison.report import check_formats, read_manifests, write_report
    from quantpress.hub.hubs import target_hub
    from quantpress.machine.workspace import require_writable

    wanted = by_comma(formats) or ["md"]
    check_formats(wanted)
    if out is not None:
        require_writable(out)
    _, settings = load_optional(catalog)
    manifests = read_manifests(target_hub(settings), settings.namespace, model)
    for line in write_report(manifests, settings, wanted, out):
        say(line)
