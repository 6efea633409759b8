"""Plots of quality against size, as they stand on a model card.

Each shows the published variants that were measured under one protocol, the efficient frontier among them and
the unquantized model's figure. Equal manifests give equal bytes: fixed fonts (DejaVu, which Matplotlib carries), no
dates or versions in the PNG. Labels are placed by :mod:`quantpress.evaluation.plot_labels`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from quantpress.errors import QuantpressError
from quantpress.evaluation.comparison import (
    Comparison,
    Cost,
    Distance,
    compare,
    frontier,
    mean_divergence,
    memory,
    memory_frontiers,
    perplexity,
    size,
)
from quantpress.evaluation.plot_frame import (
    DOMINATED,
    GREY,
    INK,
    WORTH,
    draw_frame,
    set_axis,
    shortened,
    size_unit,
)
from quantpress.evaluation.plot_labels import Box, Label, Line, place_labels
from quantpress.files import atomic
from quantpress.manifest import Entry, Manifest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PERPLEXITY_PLOT = "perplexity.png"
DIVERGENCE_PLOT = "divergence.png"
MEMORY_PERPLEXITY_PLOT = "perplexity-memory.png"
MEMORY_DIVERGENCE_PLOT = "divergence-memory.png"

#: Fewer points than this tell no more than the table does.
_FEWEST_POINTS = 2
#: 8 inches at 200 dpi: 1600 pixels for a column 800 wide.
_DPI = 200
_WIDTH, _HEIGHT, _HEIGHT_OF_MANY = 8.0, 4.8, 6.0
_MANY = 20
#: Smaller divergences are rounding, not quantization: they are drawn at this height, and the label says so.
_SMALLEST_DIVERGENCE = 1e-4


@dataclass(frozen=True)
class _Scale:
    """What stands on the vertical axis."""

    title: str
    axis: str
    distance: Distance
    errors: list[float]
    reference: float | None
    floor: float = 0.0
    cost: Cost = size
    cost_name: str = "Size"

    def frontiers(self, entries: Sequence[Entry]) -> list[list[Entry]]:
        """One by size; one per engine and runner by memory."""
        if self.cost is memory:
            return memory_frontiers(entries, self.distance)
        return [frontier(entries, self.distance, self.cost)]

    def height(self, entry: Entry) -> float:
        """Where the entry is drawn."""
        return max(self.distance(entry), self.floor)

    def label(self, entry: Entry) -> str:
        name = shortened(entry.variant)
        return name if self.distance(entry) >= self.floor else f"{name} (< {self.floor:g})"


def draw_plots(manifest: Manifest, folder: Path) -> list[Path]:
    """Draws into ``folder`` the plots that the manifest has figures for; returns their paths (none for one variant)."""
    comparison = compare(manifest)
    if len(comparison.entries) < _FEWEST_POINTS:
        return []
    plot_perplexity(manifest, folder / PERPLEXITY_PLOT)
    drawn = [folder / PERPLEXITY_PLOT]
    if comparison.has_divergence:
        plot_divergence(manifest, folder / DIVERGENCE_PLOT)
        drawn.append(folder / DIVERGENCE_PLOT)
    return drawn


def draw_memory_plots(manifest: Manifest, folder: Path) -> list[Path]:
    """As :func:`draw_plots`, against the peak memory while measuring in place of the size."""
    comparison = compare(manifest)
    if len(comparison.entries) < _FEWEST_POINTS:
        return []
    drawn = [folder / MEMORY_PERPLEXITY_PLOT]
    scales = [_perplexity_scale(comparison)]
    if comparison.has_divergence:
        drawn.append(folder / MEMORY_DIVERGENCE_PLOT)
        scales.append(_divergence_scale(comparison))
    for path, scale in zip(drawn, scales, strict=True):
        title = scale.title.replace("against size", "against memory")
        _plot(manifest, comparison, replace(scale, title=title, cost=memory, cost_name="Peak memory"), path)
    return drawn


def plot_perplexity(manifest: Manifest, path: Path) -> None:
    """Perplexity with one standard error against size, as PNG of 1600 pixels width.

    Raises :class:`QuantpressError` if no published variant was measured.
    """
    comparison = compare(manifest)
    _plot(manifest, comparison, _perplexity_scale(comparison), path)


def _perplexity_scale(comparison: Comparison) -> _Scale:
    reference = comparison.reference.perplexity if comparison.reference else math.nan
    return _Scale(
        title="Perplexity against size",
        axis="Perplexity (lower is better)",
        distance=perplexity,
        errors=[entry.evaluation.perplexity_error for entry in comparison.entries],
        reference=reference if math.isfinite(reference) else None,
    )


def plot_divergence(manifest: Manifest, path: Path) -> None:
    """Mean KL divergence with one standard error against size, as PNG of 1600 pixels width.

    Raises :class:`QuantpressError` unless every comparable variant has its divergence measured.
    """
    comparison = compare(manifest)
    if not comparison.has_divergence:
        raise QuantpressError(
            f"{manifest.model_name}: no divergence to plot; measure the variants against the baseline"
        )
    _plot(manifest, comparison, _divergence_scale(comparison), path)


def _divergence_scale(comparison: Comparison) -> _Scale:
    divergences = [entry.evaluation.divergence for entry in comparison.entries]
    return _Scale(
        title="Divergence from the unquantized model against size",
        axis="Mean KL divergence (lower is better)",
        distance=mean_divergence,
        errors=[divergence.mean_error for divergence in divergences if divergence],
        reference=None,
        floor=_SMALLEST_DIVERGENCE,
    )


def _plot(manifest: Manifest, comparison: Comparison, scale: _Scale, path: Path) -> None:
    if not comparison.entries or comparison.protocol is None:
        raise QuantpressError(f"{manifest.model_name}: no published variant with figures to plot")
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    entries = comparison.entries
    with rc_context({"font.family": "DejaVu Sans", "font.size": 9, "text.parse_math": False}):
        height = _HEIGHT_OF_MANY if len(entries) > _MANY else _HEIGHT
        figure = Figure(figsize=(_WIDTH, height), dpi=_DPI)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.1, 0.55 / height, 0.88, 1 - 1.2 / height))
        # What was measured stands under the title: a plot is seen without its card.
        protocol = comparison.protocol
        measured = f"{protocol.text}, {protocol.windows} windows of {protocol.n_ctx} tokens"
        subtitle = f"{shortened(manifest.model_name)} {manifest.format.upper()}, {measured}"
        draw_frame(figure, axes, scale.title, subtitle, scale.axis)
        unit = size_unit([scale.cost(entry) for entry in entries])
        points = [(scale.cost(entry) / unit[1], scale.height(entry)) for entry in entries]
        _set_scales(axes, points, scale, unit[0])
        frontiers = scale.frontiers(entries)
        _draw_points(axes, entries, points, frontiers, scale)
        _draw_labels(figure, axes, entries, points, frontiers, scale)
        with atomic(path) as temporary:
            figure.savefig(temporary, format="png", dpi=_DPI, metadata={"Software": None})


def _set_scales(axes: Axes, points: Sequence[tuple[float, float]], scale: _Scale, unit: str) -> None:
    """Axes that hold all points with room for labels, logarithmic where figures spread wide."""
    widths = [x for x, _ in points]
    heights = [y for _, y in points]
    low = [max(y - error, y / 2) for y, error in zip(heights, scale.errors, strict=True)]
    high = [y + error for y, error in zip(heights, scale.errors, strict=True)]
    reference = [] if scale.reference is None else [scale.reference]
    axes.set_xlabel(f"{scale.cost_name} in {unit}", color=GREY)
    set_axis(axes, "x", widths, widths)
    set_axis(axes, "y", heights, [*low, *high, *reference])


def _draw_points(
    axes: Axes,
    entries: Sequence[Entry],
    points: Sequence[tuple[float, float]],
    frontiers: Sequence[Sequence[Entry]],
    scale: _Scale,
) -> None:
    places = dict(zip((entry.variant for entry in entries), points, strict=True))
    if scale.reference is not None:
        axes.axhline(scale.reference, color=INK, linewidth=0.9, linestyle=(0, (5, 4)), zorder=1.5)
    label: str | None = "efficient frontier" + (", per engine and runner" if len(frontiers) > 1 else "")
    for worth in frontiers:
        steps = [places[entry.variant] for entry in worth]
        axes.plot(*zip(*steps, strict=True), color=WORTH, linewidth=1.2, alpha=0.45, zorder=2, label=label)
        label = None  # named once in the legend
    axes.errorbar(
        [x for x, _ in points],
        [y for _, y in points],
        yerr=[[min(error, y / 2) for (_, y), error in zip(points, scale.errors, strict=True)], scale.errors],
        fmt="none",
        ecolor=DOMINATED,
        elinewidth=0.8,
        capsize=2,
        alpha=0.55,
        zorder=2.5,
    )
    names = {entry.variant for worth in frontiers for entry in worth}
    for colour, kept, dot, label in (
        (
            DOMINATED,
            [p for name, p in places.items() if name not in names],
            22,
            "another variant is no larger and closer",
        ),
        (WORTH, [p for name, p in places.items() if name in names], 34, None),
    ):
        if kept:
            axes.scatter(
                [x for x, _ in kept],
                [y for _, y in kept],
                s=dot,
                color=colour,
                edgecolors="white",
                linewidths=0.7,
                zorder=3,
                label=label,
            )
    axes.legend(loc="upper right", frameon=False, fontsize=8, labelcolor=GREY, borderaxespad=0.2)


def _draw_labels(
    figure: Figure,
    axes: Axes,
    entries: Sequence[Entry],
    points: Sequence[tuple[float, float]],
    frontiers: Sequence[Sequence[Entry]],
    scale: _Scale,
) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import IdentityTransform

    names = {entry.variant for worth in frontiers for entry in worth}
    font_size = 7.0 if len(entries) > _MANY else 8.0
    texts = [
        figure.text(
            0,
            0,
            scale.label(entry),
            fontsize=font_size,
            color=INK if entry.variant in names else GREY,
            transform=IdentityTransform(),
            zorder=5,
            path_effects=[withStroke(linewidth=2.2, foreground="white")],
        )
        for entry in entries
    ]
    anchors = [(float(x), float(y)) for x, y in axes.transData.transform(points)]
    obstacles = [Box(x - 9, y - 9, x + 9, y + 9) for x, y in anchors]
    frame = axes.get_window_extent()
    legend = axes.get_legend()
    if legend is not None:
        extent = legend.get_window_extent()
        obstacles.append(Box(extent.x0, extent.y0, extent.x1, extent.y1))
    if scale.reference is not None:
        _draw_reference_label(figure, axes, scale.reference, obstacles)
    labels = []
    for anchor, text in zip(anchors, texts, strict=True):
        extent = text.get_window_extent()
        labels.append(Label(anchor, extent.width, extent.height))
    lines = _drawn_lines(axes, entries, points, frontiers, scale)
    placed = place_labels(labels, obstacles, lines, Box(frame.x0, frame.y0, frame.x1, frame.y1))
    for text, (x, y), box in zip(texts, anchors, placed, strict=True):
        text.set_position((box.left, box.bottom + (box.top - box.bottom) * 0.18))
        near = box.nearest(x, y)
        if math.dist(near, (x, y)) > 18:
            figure.add_artist(
                Line2D([x, near[0]], [y, near[1]], color=DOMINATED, linewidth=0.6, transform=IdentityTransform())
            )


def _drawn_lines(
    axes: Axes,
    entries: Sequence[Entry],
    points: Sequence[tuple[float, float]],
    frontiers: Sequence[Sequence[Entry]],
    scale: _Scale,
) -> list[Line]:
    """The frontiers and the error bars as segments in pixels."""

    def pixel(x: float, y: float) -> tuple[float, float]:
        across, up = axes.transData.transform((x, y))
        return float(across), float(up)

    places = dict(zip((entry.variant for entry in entries), points, strict=True))
    steps = [step for worth in frontiers for step in pairwise(pixel(*places[entry.variant]) for entry in worth)]
    bars = [
        (pixel(x, max(y - error, y / 2)), pixel(x, y + error))
        for (x, y), error in zip(points, scale.errors, strict=True)
    ]
    return [*steps, *bars]


def _draw_reference_label(figure: Figure, axes: Axes, reference: float, obstacles: list[Box]) -> None:
    """Names the unquantized model's line at its right end, and keeps labels off the line and its name."""
    from matplotlib.patheffects import withStroke

    text = axes.annotate(
        f"unquantized {reference:.2f}",
        (1.0, reference),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        xytext=(0, -4),
        ha="right",
        va="top",
        fontsize=8,
        color=INK,
        path_effects=[withStroke(linewidth=2.2, foreground="white")],
    )
    extent = text.get_window_extent()
    obstacles.append(Box(extent.x0, extent.y0, extent.x1, extent.y1))
    frame = axes.get_window_extent()
    height = float(axes.transData.transform((axes.get_xlim()[0], reference))[1])
    obstacles.append(Box(frame.x0, height - 2, frame.x1, height + 2))
