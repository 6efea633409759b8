"""Plots: the tests read pictures back to see what is drawn, and check where labels are placed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from quantpress.errors import QuantpressError
from quantpress.evaluation.frontier import compare, dominating, frontier, mean_divergence
from quantpress.evaluation.plots.draw import draw_plots, plot_divergence, plot_perplexity
from quantpress.evaluation.plots.labels import Box, Label, place_labels
from quantpress.record.manifest import Manifest
from tests.support import samples

BLUE = (11, 92, 173)


def colours(path: Path) -> dict[tuple[int, ...], int]:
    with Image.open(path) as image:
        found = image.convert("RGB").getcolors(1 << 24) or []
    return {colour: count for count, colour in found if isinstance(colour, tuple)}


def two() -> Manifest:
    return samples.gguf({"Q4_0": 4.63, "Q8_0": 8.5})


@pytest.mark.parametrize("manifest", [two(), samples.gguf(), samples.gptq()])
def test_a_plot_is_a_png_for_a_wide_screen(manifest: Manifest, tmp_path: Path) -> None:
    for path in draw_plots(manifest, tmp_path):
        with Image.open(path) as image:
            assert (image.format, image.width) == ("PNG", 1600)
            assert not {"Software", "Creation Time", "date"} & set(image.info)
        assert colours(path)[BLUE] > 200
    assert [path.name for path in draw_plots(manifest, tmp_path)] == ["perplexity.png", "divergence.png"]


def test_equal_manifests_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        plot_perplexity(samples.gguf(), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_a_full_ladder_gets_more_room(tmp_path: Path) -> None:
    plot_perplexity(samples.gguf(samples.THIRTY_FOUR, weights=8_030_000_000), tmp_path / "many.png")
    with Image.open(tmp_path / "many.png") as image:
        assert image.size == (1600, 1200)


def test_one_variant_needs_no_plot(tmp_path: Path) -> None:
    assert draw_plots(samples.awq(), tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_without_divergence_only_perplexity_is_drawn(tmp_path: Path) -> None:
    entries = [
        samples.entry("gguf", "Q8_0", bits=8.5, divergence=None, perplexity=16.1),
        samples.entry("gguf", "Q4_0", bits=4.6, divergence=None, perplexity=16.5),
    ]
    assert [path.name for path in draw_plots(samples.gguf(entries=entries), tmp_path)] == ["perplexity.png"]
    with pytest.raises(QuantpressError, match="no divergence to plot"):
        plot_divergence(samples.gguf(entries=entries), tmp_path / "x.png")


def test_nothing_published_is_one_clear_line(tmp_path: Path) -> None:
    only = samples.entry("gguf", "Q2_K", bits=2.9, divergence=9.0, withheld="does not load")
    with pytest.raises(QuantpressError, match="no published variant"):
        plot_perplexity(samples.gguf(entries=[only]), tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []


def test_a_divergence_of_zero_or_below_is_drawn(tmp_path: Path) -> None:
    """llama-perplexity gives a tiny negative mean for a file equal to its base."""
    exact = samples.entry("gguf", "F16", bits=16.0, divergence=0.001)
    found = exact.evaluation.divergence
    assert found
    evaluation = exact.evaluation.model_copy(update={"divergence": found.model_copy(update={"mean": -1e-6})})
    entries = [
        exact.model_copy(update={"evaluation": evaluation}),
        samples.entry("gguf", "Q4_0", bits=4.6, divergence=0.03),
    ]
    plot_divergence(samples.gguf(entries=entries), tmp_path / "x.png")
    assert colours(tmp_path / "x.png")[BLUE] > 200


def test_dollar_signs_and_newlines_in_names_are_text(tmp_path: Path) -> None:
    names = {"$\\frac{": 4.6, "a\nb" * 50: 8.5}
    manifest = samples.gguf(names).model_copy(update={"model_name": "$x\n" * 90})
    plot_perplexity(manifest, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 10_000


def test_the_frontier_leaves_out_what_another_variant_beats() -> None:
    comparison = compare(samples.gguf())
    kept = [entry.variant for entry in frontier(comparison.entries, mean_divergence)]
    assert kept == [
        "Q3_K_S",
        "IQ3_M",
        "IQ4_XS",
        "Q3_K_L",
        "Q4_K_S",
        "Q4_K_M",
        "Q5_0",
        "Q5_K_S",
        "Q5_K_M",
        "Q6_K",
        "Q8_0",
    ]
    beaten = next(entry for entry in comparison.entries if entry.variant == "Q4_0")
    winner = dominating(beaten, comparison.entries, mean_divergence)
    assert winner and winner.variant == "IQ4_XS"


def test_equal_variants_do_not_dominate_each_other() -> None:
    entries = [samples.entry("gguf", name, bits=5.0, divergence=0.02) for name in ("Q4_0", "Q3_K_L")]
    assert [entry.variant for entry in frontier(entries, mean_divergence)] == ["Q3_K_L", "Q4_0"]


def test_the_reference_is_of_the_same_engine() -> None:
    for manifest, engine in ((samples.gguf(), "llama.cpp"), (samples.gptq(), "transformers")):
        reference = compare(manifest).reference
        assert reference and reference.engine == engine


FRAME = Box(0, 0, 1400, 800)


def test_labels_of_a_crowd_do_not_overlap() -> None:
    labels = [Label((300 + 37.0 * (n % 6), 300 + 29.0 * (n // 6)), 70, 20) for n in range(34)]
    points = [Box(x - 9, y - 9, x + 9, y + 9) for x, y in (label.anchor for label in labels)]
    boxes = place_labels(labels, points, [], FRAME)
    assert all(one.overlap(two) == 0 for n, one in enumerate(boxes) for two in boxes[:n])
    assert all(box.overlap(point) == 0 for box in boxes for point in points)
    assert all(box.outside(FRAME) == 0 for box in boxes)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1400), st.floats(0, 800)), min_size=1, max_size=12))
def test_every_label_gets_a_place_within_the_frame(anchors: list[tuple[float, float]]) -> None:
    boxes = place_labels([Label(anchor, 80, 20) for anchor in anchors], [], [], FRAME)
    assert len(boxes) == len(anchors)
    assert all(box.outside(FRAME) < 1e-6 for box in boxes)


def test_a_lone_label_stands_close_to_its_point_at_the_upper_right() -> None:
    (box,) = place_labels([Label((500, 400), 80, 20)], [], [], FRAME)
    assert (box.left + box.right) / 2 > 500 and box.bottom > 400
    x, y = box.closest_point(500, 400)
    assert (x - 500) ** 2 + (y - 400) ** 2 < 20**2
