"""Draws what a plot shows within its axes: points with their errors, the efficient frontier and the labels.

The efficient frontier is the line through the variants that are worth having (:mod:`quantpress.evaluation.frontier`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from quantpress.evaluation.frontier import Cost, Distance, frontier, memory, memory_frontiers, size
from quantpress.evaluation.plots.frame import DOMINATED, GREY, INK, WORTH, set_axis, shortened
from quantpress.evaluation.plots.labels import Box, Label, Line, place_labels
from quantpress.record.manifest import Entry

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: With more points than this, labels are smaller and the plot is higher.
MANY = 20


@dataclass(frozen=True)
class Scale:
    """What a plot's axes show: a measure of quality on the vertical axis, and a cost on the horizontal axis.

    ``errors`` holds one standard error for each entry. Distances below ``floor`` are drawn at ``floor``. ``reference``
    is the unquantized model's figure, if there is one.
    """

    title: str
    axis: str
    distance: Distance
    errors: list[float]
    reference: float | None
    floor: float = 0.0
    cost: Cost = size
    cost_name: str = "Size"

    def frontiers(self, entries: Sequence[Entry]) -> list[list[Entry]]:
        """Returns one frontier if the cost is the size. For memory, returns one per engine and measuring machine."""
        if self.cost is memory:
            return memory_frontiers(entries, self.distance)
        return [frontier(entries, self.distance, self.cost)]

    def height(self, entry: Entry) -> float:
        """Returns the height at which the entry is drawn."""
        return max(self.distance(entry), self.floor)

    def label(self, entry: Entry) -> str:
        name = shortened(entry.variant)
        return name if self.distance(entry) >= self.floor else f"{name} (< {self.floor:g})"


def set_scales(axes: Axes, points: Sequence[tuple[float, float]], scale: Scale, unit: str) -> None:
    """Sets the limits of both axes, so that they leave room for the labels around the points.

    If the figures of an axis spread wide, the axis is logarithmic.
    """
    widths = [x for x, _ in points]
    heights = [y for _, y in points]
    low = [max(y - error, y / 2) for y, error in zip(heights, scale.errors, strict=True)]
    high = [y + error for y, error in zip(heights, scale.errors, strict=True)]
    reference = [] if scale.reference is None else [scale.reference]
    axes.set_xlabel(f"{scale.cost_name} in {unit}", color=GREY)
    set_axis(axes, "x", widths, widths)
    set_axis(axes, "y", heights, [*low, *high, *reference])


def draw_points(
    axes: Axes,
    entries: Sequence[Entry],
    points: Sequence[tuple[float, float]],
    frontiers: Sequence[Sequence[Entry]],
    scale: Scale,
) -> None:
    """Draws the points with their error bars, the frontiers and the legend."""
    places = dict(zip((entry.variant for entry in entries), points, strict=True))
    if scale.reference is not None:
        axes.axhline(scale.reference, color=INK, linewidth=0.9, linestyle=(0, (5, 4)), zorder=1.5)
    label: str | None = "efficient frontier" + (", per engine and runner" if len(frontiers) > 1 else "")
    for worth in frontiers:
        steps = [places[entry.variant] for entry in worth]
        axes.plot(*zip(*steps, strict=True), color=WORTH, linewidth=1.2, alpha=0.45, zorder=2, label=label)
        label = None  # so that the legend has one line for all frontiers
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


def draw_labels(
    figure: Figure,
    axes: Axes,
    entries: Sequence[Entry],
    points: Sequence[tuple[float, float]],
    frontiers: Sequence[Sequence[Entry]],
    scale: Scale,
) -> None:
    """Labels the points, in places where the labels hide as little as possible.

    If a label is far from its point, a line joins the two.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import IdentityTransform

    names = {entry.variant for worth in frontiers for entry in worth}
    font_size = 7.0 if len(entries) > MANY else 8.0
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
        _draw_reference_label(axes, scale.reference, obstacles)
    labels = []
    for anchor, text in zip(anchors, texts, strict=True):
        extent = text.get_window_extent()
        labels.append(Label(anchor, extent.width, extent.height))
    lines = _drawn_lines(axes, entries, points, frontiers, scale)
    placed = place_labels(labels, obstacles, lines, Box(frame.x0, frame.y0, frame.x1, frame.y1))
    for text, (x, y), box in zip(texts, anchors, placed, strict=True):
        text.set_position((box.left, box.bottom + (box.top - box.bottom) * 0.18))
        near = box.closest_point(x, y)
        if math.dist(near, (x, y)) > 18:
            figure.add_artist(
                Line2D([x, near[0]], [y, near[1]], color=DOMINATED, linewidth=0.6, transform=IdentityTransform())
            )


def _drawn_lines(
    axes: Axes,
    entries: Sequence[Entry],
    points: Sequence[tuple[float, float]],
    frontiers: Sequence[Sequence[Entry]],
    scale: Scale,
) -> list[Line]:
    """Returns the frontiers and the error bars as segments in pixels."""

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


def _draw_reference_label(axes: Axes, reference: float, obstacles: list[Box]) -> None:
    """Writes a label at the right end of the unquantized model's line.

    Adds this label and the line to ``obstacles``, so that the other labels stay off both.
    """
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
