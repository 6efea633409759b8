"""The command line. Exit codes: 0 done, 1 failed, 2 bad input. An error message says what to do.

Commands import heavy modules inside their functions, because ``quantpress --help`` must answer at once.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from quantpress.cli.commands import local, measure, operation, upkeep
from quantpress.cli.commands.options import (
    DEFAULT_CATALOG,
    CatalogOption,
    FormatsOption,
    JsonOption,
    OnlyOption,
    by_comma,
    load,
    load_optional,
)
from quantpress.errors import BadInput, QuantpressError
from quantpress.hub.token import hold_token
from quantpress.repo_id import check_repo_id
from quantpress.terminal import say

app = typer.Typer(
    help="Quantize, measure and publish every model of a catalog.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
toolchain = typer.Typer(help="The toolchains that quantizers run on.", no_args_is_help=True)
app.add_typer(toolchain, name="toolchain")


def main() -> None:
    """Runs the command line. Prints the message of an expected error, and exits with the error's exit code."""
    hold_token()
    try:
        app()
    except QuantpressError as error:
        for line in str(error).splitlines():
            say(f"quantpress: {line}" if not line.startswith("  ") else line, error=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        say("quantpress: interrupted", error=True)
        sys.exit(130)


@app.command()
def check(catalog: CatalogOption = DEFAULT_CATALOG, as_json: JsonOption = False) -> None:
    """Validates the catalog: file, line, what is wrong."""
    loaded, _ = load(catalog)
    if as_json:
        say(json.dumps({"catalog": str(catalog), "models": [line.repo for line in loaded.models]}))
    else:
        count = len(loaded.models)
        say(f"{catalog}: {count} {'model' if count == 1 else 'models'}, no mistakes")


@app.command()
def schema(out: Annotated[Path, typer.Option(help="file to write")] = Path("catalog.schema.json")) -> None:
    """Writes the catalog's JSON schema, for editors."""
    from quantpress.catalog.reader import schema as catalog_schema
    from quantpress.files import write_text

    try:
        write_text(out, json.dumps(catalog_schema(), indent=2) + "\n")
    except OSError as error:
        raise BadInput(f"{out}: cannot be written ({error.strerror}); give another file by --out") from None
    say(f"{out} written")


@app.command()
def plan(
    catalog: CatalogOption = DEFAULT_CATALOG,
    only: OnlyOption = None,
    formats: FormatsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prints steps, reasons and estimates, and which published repos left the catalog. Changes nothing."""
    from quantpress.cli.tables import print_plan
    from quantpress.hub.hubs import hubs
    from quantpress.plan.budget import storage_used
    from quantpress.plan.make import plan_catalog
    from quantpress.plan.orphans import find_orphans

    loaded, settings = load(catalog)
    both = hubs(settings)
    plans = plan_catalog(loaded, settings, both, only=only, formats=_split(formats))
    orphaned = find_orphans(loaded, settings, both.target) if only is None and formats is None else []
    if as_json:
        steps = [step for each in plans for step in each.steps] + orphaned
        say(json.dumps([step.model_dump(mode="json") for step in steps], indent=2))
    else:
        print_plan(plans, orphaned, storage_used(both.target, settings.namespace), settings)


@app.command()
def run(
    catalog: CatalogOption = DEFAULT_CATALOG,
    only: OnlyOption = None,
    formats: FormatsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Carries the plan out here and now, through the Prefect flow."""
    from quantpress.cli.tables import print_results
    from quantpress.hub.client import prepare_hub_client
    from quantpress.plan.make import require_plannable

    loaded, settings = load(catalog)
    require_plannable(loaded, settings, only)
    prepare_hub_client(settings.target_endpoint)
    prepare_prefect()
    from flows.nightly import nightly
    from quantpress.record.report import ModelReport

    state = nightly(str(catalog), only, _split(formats), return_state=True)
    reports = state.result(raise_on_failure=False)
    if not isinstance(reports, list):
        raise QuantpressError(f"the nightly flow ended as {state.name}: {state.message}")
    done: list[ModelReport] = reports
    if as_json:
        say(json.dumps([report.model_dump(mode="json") for report in done], indent=2))
    else:
        print_results(done, settings)
    if state.is_failed():
        raise QuantpressError(state.message or "the nightly flow failed")


@app.command()
def verify(
    repo: Annotated[str, typer.Argument(help="published repository")],
    revision: Annotated[str, typer.Option(help="branch, tag or commit")] = "main",
    catalog: CatalogOption = DEFAULT_CATALOG,
    as_json: JsonOption = False,
) -> None:
    """Downloads a published repo, compares its files with the manifest, loads each variant and generates text."""
    from quantpress.cli.tables import print_verification
    from quantpress.hub.hubs import target_hub
    from quantpress.verify.loading import Loader
    from quantpress.verify.verify import verify as download_and_check

    check_repo_id(repo)
    _, settings = load_optional(catalog)
    loader = Loader(settings.compute_device(), settings.thread_count())
    found = download_and_check(target_hub(settings), repo, revision, loader, settings.home)
    if as_json:
        say(json.dumps(asdict(found), indent=2))
    else:
        print_verification(found)
    bad, mute = ([each for each in part if each.problem] for part in (found.files, found.variants))
    if bad:
        raise QuantpressError(
            f"{repo}@{revision}: {len(bad)} of {len(found.files)} files are not what {found.reference} says"
        )
    if mute:
        raise QuantpressError(f"{repo}@{revision}: {len(mute)} of {len(found.variants)} variants do not generate text")
    if found.problems:
        raise QuantpressError(f"{repo}@{revision}: {'; '.join(found.problems)}")


@app.command()
def hub(
    root: Annotated[Path, typer.Option(help="folder that holds the Hub's data")] = Path(".quantpress/hub"),
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="port; 0: any free one")] = 7860,
    check: Annotated[
        bool, typer.Option("--check", help="hash every object again instead, and set wrong ones aside")
    ] = False,
    name: Annotated[list[str] | None, typer.Option(help="a host name by which clients call the Hub")] = None,
) -> None:
    """Starts the embedded Hub, or checks what it keeps."""
    if check:
        operation.check_hub(root)
        return
    from quantpress.localhub.server import serve

    serve(root, host, port, name or ())


app.command()(local.quantize)
app.command()(measure.evaluate)
app.command()(measure.report)
app.command()(upkeep.retract)
app.command()(upkeep.rebuild)
app.command()(operation.deploy)
app.command()(operation.doctor)


@toolchain.command("list")
def toolchain_list(as_json: JsonOption = False) -> None:
    """Lists the toolchains: what is installed, and what is missing."""
    from quantpress.cli.tables import print_toolchains
    from quantpress.toolchain.registry import TOOLCHAINS

    found = [(each, each.find()) for each in TOOLCHAINS]
    if not as_json:
        print_toolchains(found)
        return
    rows = [
        {
            "name": each.name,
            "for": each.purpose,
            "version": there.version if there else None,
            "folder": str(there.folder) if there else None,
        }
        for each, there in found
    ]
    say(json.dumps(rows, indent=2))


@toolchain.command("install")
def toolchain_install(name: Annotated[str, typer.Argument(help="a name from `quantpress toolchain list`")]) -> None:
    """Builds a toolchain in the user's cache, once."""
    from quantpress.toolchain.progress import shown
    from quantpress.toolchain.registry import toolchain as toolchain_named

    wanted = toolchain_named(name)
    with shown() as progress:
        made = wanted.install(progress)
    say(f"{made.version} in {made.folder}")


def prepare_prefect() -> None:
    """Sets defaults for the temporary (ephemeral) server that Prefect itself starts. Environment variables override
    these defaults.

    The server can start slowly on two busy cores, so the timeout for its start is 120 s. Prefect sends no telemetry.
    """
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")


def _split(formats: str | None) -> list[str] | None:
    from quantizers import quantizer

    names = by_comma(formats)
    return None if names is None else [quantizer(name).format for name in names]
