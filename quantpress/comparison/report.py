"""``quantpress report``: writes or prints the comparison of a model's published formats."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quantizers import usable
from quantpress.comparison.compare import compare_formats
from quantpress.comparison.page import Place, as_csv, as_html, as_json, as_markdown, draw
from quantpress.errors import BadInput
from quantpress.files import write_text
from quantpress.record.manifest import Manifest
from quantpress.record.names import model_name
from quantpress.record.shelf import read_shelf
from quantpress.repo_id import check_repo_id
from quantpress.settings import Settings

if TYPE_CHECKING:
    from huggingface_hub import HfApi

FORMATS = ("md", "html", "json", "csv")


def read_manifests(api: HfApi, namespace: str, model: str) -> dict[str, Manifest]:
    """Returns a dict from repo id to the manifest on ``main``, for each published format of a model.

    The formats have the order in which quantpress lists all formats.

    Raises :class:`BadInput` if no namespace is set, if ``model`` is not a valid name, or if no format is published.
    """
    if not namespace:
        raise BadInput("no namespace to read from: set QUANTPRESS_NAMESPACE or 'namespace' in the settings")
    name, found = model_name(model) or model, {}
    check_repo_id(model if "/" in model else f"{namespace}/{model}")
    for chosen in usable().values():
        repo_id = f"{namespace}/{name}-{chosen.suffix}"
        manifest = read_shelf(api, repo_id).manifests.get("main")
        if manifest is not None:
            found[repo_id] = manifest
    if not found:
        raise BadInput(f"{api.endpoint} has no repository of {namespace} with a format of {name}: press it first")
    return found


def check_formats(formats: Sequence[str]) -> None:
    """Raises :class:`BadInput` for an unknown format."""
    if unknown := [name for name in formats if name not in FORMATS]:
        raise BadInput(f"unknown report format {unknown[0]!r}: use {', '.join(FORMATS)}")


def write_report(
    manifests: Mapping[str, Manifest], settings: Settings, formats: Sequence[str], out: Path | None
) -> list[str]:
    """Writes ``comparison.{format}`` for each format, and the plots, into ``out``. Returns the paths of these files.

    If ``out`` is None, writes nothing and returns the texts.
    """
    comparison = compare_formats(manifests)
    place = Place(settings.namespace, settings.target_endpoint)
    with tempfile.TemporaryDirectory() as scratch:
        plots = draw(manifests, out or Path(scratch)) if "html" in formats or out else []
        makers = {
            "md": lambda: as_markdown(comparison, place, [plot.name for plot in plots]),
            "html": lambda: as_html(comparison, place, plots),
            "json": lambda: as_json(comparison),
            "csv": lambda: as_csv(comparison),
        }
        texts = {name: makers[name]() for name in formats}
    if out is None:
        return [text.rstrip("\n") for text in texts.values()]
    for name, text in texts.items():
        write_text(out / f"comparison.{name}", text)
    return [str(path) for path in [*(out / f"comparison.{name}" for name in texts), *plots]]
