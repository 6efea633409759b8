"""Writes the comparison of a model's formats as Markdown, HTML, JSON and CSV. Also composes the comparison's commit."""

from __future__ import annotations

import base64
import csv
import io
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from quantpress.card import markdown
from quantpress.card.figures import MISSING, share_text, size_text
from quantpress.card.front_matter import front_matter
from quantpress.card.markdown import Markdown
from quantpress.card.templates import TEMPLATES, markdown_environment
from quantpress.comparison.compare import ComparedVariant, ModelComparison, compare_formats, merge
from quantpress.comparison.state import STATE_FILE, state_of
from quantpress.evaluation.plots.draw import (
    DIVERGENCE_PLOT,
    MEMORY_DIVERGENCE_PLOT,
    MEMORY_PERPLEXITY_PLOT,
    PERPLEXITY_PLOT,
    draw_memory_plots,
    draw_plots,
)
from quantpress.publish.commit import BranchCommit
from quantpress.record.manifest import Manifest
from quantpress.record.names import comparison_repo
from quantpress.settings import HUGGING_FACE

_PLOTS = {
    DIVERGENCE_PLOT: "Divergence against size",
    MEMORY_DIVERGENCE_PLOT: "Divergence against memory",
    PERPLEXITY_PLOT: "Perplexity against size",
    MEMORY_PERPLEXITY_PLOT: "Perplexity against memory",
}


@dataclass(frozen=True)
class Place:
    """Where the comparison is published: the namespace, and the address of the Hub (None for huggingface.co)."""

    namespace: str
    endpoint: str | None = None

    @property
    def base(self) -> str:
        """The start of every address on the Hub. It is empty if the Hub is not huggingface.co. Addresses then begin
        with a slash, so that they work under any host name."""
        return HUGGING_FACE if self.endpoint in (None, HUGGING_FACE) else ""

    def repo(self, repo_id: str) -> str:
        """The address of a repository."""
        return f"{self.base}/{markdown.path(repo_id)}"

    def variant(self, row: ComparedVariant) -> str:
        """The address of a variant's branch."""
        return f"{self.repo(row.repo_id)}/tree/{markdown.segment(row.branch)}"


def compose_comparison(
    manifests: Mapping[str, Manifest], place: Place, folder: Path, collected: Collection[str] = ()
) -> BranchCommit:
    """Returns the commit to the comparison's repository.

    The commit holds README.md, the plots, the same figures as HTML, JSON and CSV, and the comparison's state.
    ``manifests`` maps repo id to the manifest of ``main``. Plots are drawn into ``folder``. ``collected`` are the
    repositories that the model's collection on the Hub holds. Equal input gives equal bytes. Raises
    :class:`~quantpress.errors.BadInput` if there is no manifest.
    """
    comparison, plots = compare_formats(manifests), draw(manifests, folder)
    texts = {
        "README.md": as_markdown(comparison, place, [plot.name for plot in plots]),
        "comparison.html": as_html(comparison, place, plots),
        "comparison.json": as_json(comparison),
        "comparison.csv": as_csv(comparison),
        STATE_FILE: state_of(manifests, collected).to_json(),
    }
    uploads: dict[str, Path | bytes] = {name: text.encode() for name, text in texts.items()}
    drawn = {plot.name: plot for plot in plots}
    return BranchCommit("main", uploads | drawn, frozenset(_PLOTS) - set(drawn))


def draw(manifests: Mapping[str, Manifest], folder: Path) -> list[Path]:
    """Plots the perplexity and the divergence of all variants against size and against memory. Returns the files."""
    merged = merge(manifests)
    drawn = {path.name: path for path in [*draw_plots(merged, folder), *draw_memory_plots(merged, folder)]}
    return [drawn[name] for name in _PLOTS if name in drawn]


def as_markdown(comparison: ModelComparison, place: Place, plots: Sequence[str] = ()) -> str:
    """Returns the page as a repository's README.md. ``plots`` are the names of the plots in the same repository."""
    repo = comparison_repo(place.namespace, comparison.model_name)
    source = comparison.source
    head = front_matter(
        source,
        quantized_by=place.namespace,
        library_name="transformers",
        tags=["quantpress", "comparison"],
        license_base=f"{HUGGING_FACE}/{markdown.path(source.repo)}/blob/{markdown.segment(source.sha)}",
    )
    shown = [(_PLOTS[name], f"{place.repo(repo)}/resolve/main/{name}") for name in plots]
    values = {"front_matter": Markdown(head), "plots": shown}
    return _rendered(markdown_environment([TEMPLATES]), "comparison.md.jinja", comparison, place, values)


def as_html(comparison: ModelComparison, place: Place, plots: Sequence[Path] = ()) -> str:
    """Returns the page as one HTML file that needs no other file. The plots are embedded."""
    environment = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
    )
    shown = [
        (_PLOTS[plot.name], f"data:image/png;base64,{base64.b64encode(plot.read_bytes()).decode()}") for plot in plots
    ]
    return _rendered(environment, "comparison.html.jinja", comparison, place, {"plots": shown})


def as_json(comparison: ModelComparison) -> str:
    return comparison.model_dump_json(indent=2) + "\n"


def as_csv(comparison: ModelComparison) -> str:
    """Returns one line per comparable variant. The columns are the fields of
    :class:`~quantpress.comparison.compare.ComparedVariant`, then the protocol."""
    protocol = comparison.protocol.model_dump() if comparison.protocol else {}
    columns = [*ComparedVariant.model_fields, *(f"protocol_{name}" for name in protocol)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in comparison.variants:
        writer.writerow([_plain(value) for value in [*row.model_dump().values(), *protocol.values()]])
    return text.getvalue()


def _plain(value: object) -> object:
    """Puts an apostrophe before a text that a spreadsheet would read as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def _rendered(
    environment: Environment, template: str, comparison: ModelComparison, place: Place, values: dict[str, Any]
) -> str:
    shared = {
        "address": place.variant,
        "repo_address": place.repo,
        "comparison": comparison,
        "size": lambda size: MISSING if size is None else size_text(size),
        "figure": lambda value, decimals: (
            f"{value:,.{decimals}f}" if value is not None and math.isfinite(value) else MISSING
        ),
        "runner": lambda name: MISSING if name is None else name,
        "share": lambda share: MISSING if share is None else share_text(share),
        "runners": sorted({f"{row.engine}: {row.runner}" for row in comparison.variants if row.runner}),
        "several_runners": len({row.runner for row in comparison.variants}) > 1,
        "repos": _repos(comparison),
    }
    return environment.get_template(template).render(shared | values).strip() + "\n"


def _repos(comparison: ModelComparison) -> list[str]:
    """Returns the repositories of all variants, each once, in the order of the variants."""
    compared = [variant.repo_id for variant in comparison.variants]
    return list(dict.fromkeys(compared + [other.repo_id for other in comparison.others]))
