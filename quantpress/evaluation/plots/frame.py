"""The look of a plot: its colours, its titles, and axes whose figures have no exponents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: If the largest figure is more than this many times the smallest, an axis is logarithmic.
_LOGARITHMIC_FROM = 3.0

INK, GREY, FAINT = "#24292f", "#6e7781", "#d8dee4"
WORTH, DOMINATED = "#0b5cad", "#9aa4ae"


def draw_frame(figure: Figure, axes: Axes, title: str, subtitle: str, axis: str) -> None:
    """Draws the titles, the axis lines and the grid. ``axis`` is the text beside the vertical axis."""
    inch = 1 / float(figure.get_figheight())
    figure.text(0.012, 1 - 0.28 * inch, title, fontsize=12.5, fontweight="bold", color=INK)
    figure.text(
        0.012,
        1 - 0.5 * inch,
        subtitle,
        color=GREY,
    )
    axes.set_ylabel(axis, color=GREY)
    axes.yaxis.set_label_coords(-0.083, 0.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=GREY, which="both", length=3, color=FAINT)
    axes.grid(which="major", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def set_axis(axes: Axes, name: str, values: Sequence[float], extent: Sequence[float]) -> None:
    """Sets the limits of the axis ``name`` ("x" or "y"), so that all of ``extent`` is visible, with a margin.

    If all ``values`` are positive and spread wide, the axis is logarithmic.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    axis = axes.xaxis if name == "x" else axes.yaxis
    set_limits = axes.set_xlim if name == "x" else axes.set_ylim
    low, high = min(extent), max(extent)
    if min(values) > 0 and max(values) / min(values) > _LOGARITHMIC_FROM:
        (axes.set_xscale if name == "x" else axes.set_yscale)("log")
        margin = max(math.log(high / low) * 0.09, 0.05)
        set_limits(low * math.exp(-margin), high * math.exp(margin))
        decades = math.log10(high / low)
        steps = (1.0, 2.0, 5.0) if decades > 1.0 else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
        axis.set_major_locator(LogLocator(base=10, subs=steps, numticks=50))
        axis.set_minor_formatter(NullFormatter())
        axis.minorticks_off()
    else:
        margin = max((high - low) * 0.09, abs(high) * 0.01)
        set_limits(low - margin, high + margin)
        axis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _tick_text(value)))


def _tick_text(value: float) -> str:
    """Formats a figure without an exponent and without trailing zeros."""
    text = f"{value:,.6f}"
    return text.rstrip("0").rstrip(".")


def size_unit(sizes: Sequence[int]) -> tuple[str, float]:
    """Returns the unit that suits the largest size (GB or MB), and the number of bytes in this unit."""
    return ("GB", 1e9) if max(sizes) >= 1e9 else ("MB", 1e6)


def shortened(name: str) -> str:
    """Returns ``name`` without unprintable characters, cut to at most 40 characters."""
    printable = "".join(character for character in name if character.isprintable())
    return printable if len(printable) <= 40 else printable[:39] + "…"
