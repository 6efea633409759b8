"""Plots of quality against size for a model card.

Each plot shows the published variants that were measured under one protocol. It also shows their efficient frontier
(:mod:`quantpress.evaluation.frontier`), and a plot of perplexity shows the unquantized model's figure. Equal manifests
give equal bytes, because the font is fixed (DejaVu, which Matplotlib carries) and the PNG holds no dates or versions.
:mod:`quantpress.evaluation.plots.labels` places the labels.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from quantpress.errors import QuantpressError
from quantpress.evaluation.frontier import (
    Comparison,
    compare,
    mean_divergence,
    memory,
    perplexity,
)
from quantpress.evaluation.plots.frame import draw_frame, shortened, size_unit
from quantpress.evaluation.plots.points import MANY, Scale, draw_labels, draw_points, set_scales
from quantpress.files import atomic
from quantpress.record.manifest import Manifest

PERPLEXITY_PLOT = "perplexity.png"
DIVERGENCE_PLOT = "divergence.png"
MEMORY_PERPLEXITY_PLOT = "perplexity-memory.png"
MEMORY_DIVERGENCE_PLOT = "divergence-memory.png"

#: A plot of fewer points shows no more than the model card's table.
_FEWEST_POINTS = 2
#: A plot is 8 inches wide. At 200 dpi that is 1600 pixels, for a column that is 800 pixels wide.
_DPI = 200
_WIDTH, _HEIGHT, _HEIGHT_OF_MANY = 8.0, 4.8, 6.0
#: Divergences below this come from rounding, not from quantization. Their points are drawn at this height, and the
#: point's label says that the divergence is smaller.
_SMALLEST_DIVERGENCE = 1e-4


def draw_plots(manifest: Manifest, folder: Path) -> list[Path]:
    """Draws into ``folder`` the plots for which the manifest has figures, and returns the paths of the plots.

    If fewer than two variants can be compared, nothing is drawn and the list is empty.
    """
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
    """Draws the same plots as :func:`draw_plots`, but with the peak memory during measurement in place of the size."""
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
    """Draws perplexity against size, with error bars of one standard error, as a PNG 1600 pixels wide.

    Raises :class:`QuantpressError` if no published variant was measured.
    """
    comparison = compare(manifest)
    _plot(manifest, comparison, _perplexity_scale(comparison), path)


def _perplexity_scale(comparison: Comparison) -> Scale:
    reference = comparison.reference.perplexity if comparison.reference else math.nan
    return Scale(
        title="Perplexity against size",
        axis="Perplexity (lower is better)",
        distance=perplexity,
        errors=[entry.evaluation.perplexity_error for entry in comparison.entries],
        reference=reference if math.isfinite(reference) else None,
    )


def plot_divergence(manifest: Manifest, path: Path) -> None:
    """Draws mean KL divergence against size, with error bars of one standard error, as a PNG 1600 pixels wide.

    Raises :class:`QuantpressError` if a variant under the common protocol has no measured divergence.
    """
    comparison = compare(manifest)
    if not comparison.has_divergence:
        raise QuantpressError(
            f"{manifest.model_name}: no divergence to plot; measure the variants against the baseline"
        )
    _plot(manifest, comparison, _divergence_scale(comparison), path)


def _divergence_scale(comparison: Comparison) -> Scale:
    divergences = [entry.evaluation.divergence for entry in comparison.entries]
    return Scale(
        title="Divergence from the unquantized model against size",
        axis="Mean KL divergence (lower is better)",
        distance=mean_divergence,
        errors=[divergence.mean_error for divergence in divergences if divergence],
        reference=None,
        floor=_SMALLEST_DIVERGENCE,
    )


def _plot(manifest: Manifest, comparison: Comparison, scale: Scale, path: Path) -> None:
    if not comparison.entries or comparison.protocol is None:
        raise QuantpressError(f"{manifest.model_name}: no published variant with figures to plot")
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    entries = comparison.entries
    with rc_context({"font.family": "DejaVu Sans", "font.size": 9, "text.parse_math": False}):
        height = _HEIGHT_OF_MANY if len(entries) > MANY else _HEIGHT
        figure = Figure(figsize=(_WIDTH, height), dpi=_DPI)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.1, 0.55 / height, 0.88, 1 - 1.2 / height))
        # The subtitle names the model and the protocol, because people also see a plot without its model card.
        protocol = comparison.protocol
        measured = f"{protocol.text}, {protocol.windows} windows of {protocol.n_ctx} tokens"
        subtitle = f"{shortened(manifest.model_name)} {manifest.format.upper()}, {measured}"
        draw_frame(figure, axes, scale.title, subtitle, scale.axis)
        unit = size_unit([scale.cost(entry) for entry in entries])
        points = [(scale.cost(entry) / unit[1], scale.height(entry)) for entry in entries]
        set_scales(axes, points, scale, unit[0])
        frontiers = scale.frontiers(entries)
        draw_points(axes, entries, points, frontiers, scale)
        draw_labels(figure, axes, entries, points, frontiers, scale)
        with atomic(path) as temporary:
            figure.savefig(temporary, format="png", dpi=_DPI, metadata={"Software": None})
