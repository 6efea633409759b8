"""The comparison of a model's formats: what it holds, and that strangers' names in it stay text."""

from __future__ import annotations

import csv
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from quantpress.card.figures import MISSING
from quantpress.comparison.compare import ModelComparison, compare_formats
from quantpress.comparison.page import Place, as_csv, as_html, as_json, as_markdown, compose_comparison, draw
from quantpress.errors import BadInput
from quantpress.record.manifest import Earlier, Entry, Manifest
from tests.support import samples

GGUF, GPTQ = "press/M-GGUF", "press/M-GPTQ"


def measured(entry: Entry, memory: int, **changes: object) -> Entry:
    found = entry.evaluation.model_copy(update={"peak_memory_bytes": memory, "runner": "CPU X", **changes})
    return entry.model_copy(update={"evaluation": found})


def gguf(**changes: object) -> Manifest:
    entries = [
        measured(samples.entry("gguf", "Q8_0", bits=8.5, divergence=0.004), 300_000_000),
        measured(samples.entry("gguf", "Q4_K_M", bits=4.8, divergence=0.05), 200_000_000),
    ]
    return samples.gguf(**({"entries": entries, "shared": []} | changes))


def gptq() -> Manifest:
    entries = [
        measured(samples.entry("gptq", "gptq-8bit-64g", bits=8.9, divergence=0.002), 1_500_000_000),
        measured(samples.entry("gptq", "gptq-4bit-64g", bits=4.9, divergence=0.09), 1_400_000_000),
    ]
    return samples.gguf(entries=entries, format="gptq", shared=[])


def compared() -> ModelComparison:
    return compare_formats({GGUF: gguf(), GPTQ: gptq()})


def test_all_formats_stand_in_one_table_by_size() -> None:
    assert [row.name for row in compared().variants] == ["gptq-8bit-64g", "gguf Q8_0", "gptq-4bit-64g", "gguf Q4_K_M"]


def test_what_another_beats_in_size_or_in_its_engines_memory_is_not_marked() -> None:
    marks = {row.name: (row.best_for_size, row.best_for_memory) for row in compared().variants}
    assert marks == {
        "gptq-8bit-64g": (True, True),
        "gguf Q8_0": (True, True),
        # gguf Q8_0 takes less memory and is closer, but memory is compared only within one engine.
        "gptq-4bit-64g": (False, True),
        "gguf Q4_K_M": (True, True),
    }


def test_the_file_for_a_memory_is_the_closest_that_was_measured_within_it() -> None:
    found = [(each.memory_bytes, [row.name for row in each.best]) for each in compared().choices]
    assert found == [
        (250_000_000, ["gguf Q4_K_M"]),
        (500_000_000, ["gguf Q8_0"]),
        (2_000_000_000, ["gptq-8bit-64g", "gguf Q8_0"]),
    ]


def on_a_gpu() -> Manifest:
    """Two variants of transformers. The one measured on a GPU took less memory than the one measured on a CPU."""
    on_cpu, other = gptq().entries
    evaluation = other.evaluation.model_copy(update={"peak_device_memory_bytes": 90_000_000, "runner": "GPU |Y|"})
    return samples.gguf(entries=[on_cpu, other.model_copy(update={"evaluation": evaluation})], format="gptq", shared=[])


def test_memory_is_compared_within_an_engine_and_a_runner_and_runners_that_differ_are_named(tmp_path: Path) -> None:
    worse = measured(samples.entry("gptq", "gptq-3bit-64g", bits=8.9, divergence=0.5), 1_500_000_001)
    manifests = {GPTQ: on_a_gpu().model_copy(update={"entries": [*on_a_gpu().entries, worse]})}
    found = compare_formats(manifests)

    marks = {row.name: row.best_for_memory for row in found.variants}
    assert marks == {"gptq-8bit-64g": True, "gptq-4bit-64g": True, "gptq-3bit-64g": False}
    page = as_markdown(found, Place("press"))
    assert "| Variant | Engine | Runner | Size |" in page
    assert "/tree/main)** | transformers | GPU &#124;Y&#124; | 82.4\u00a0MB | 4.90 | ● 90.0\u00a0MB |" in page
    assert "transformers on CPU X: gptq-8bit-64g (KLD 0.0020, 1.50\u00a0GB)" in page
    widths = {line.count("|") for line in page.partition("## All variants")[2].splitlines() if line.startswith("|")}
    assert widths == {14}
    assert '<td class="text">transformers</td><td class="text">GPU |Y|</td>' in as_html(found, Place("press"))
    assert [row["runner"] for row in csv.DictReader(io.StringIO(as_csv(found)))] == ["CPU X", "CPU X", "GPU |Y|"]
    assert "Runner" not in as_markdown(compared(), Place("press"))
    assert {path.name for path in draw(manifests, tmp_path)} >= {"divergence-memory.png", "perplexity-memory.png"}


def test_memory_is_the_gpus_where_it_was_measured_on_one() -> None:
    entry = measured(samples.entry("gguf", "Q8_0", bits=8.5, divergence=0.004), 9_000_000_000)
    entry = measured(entry, 9_000_000_000, peak_device_memory_bytes=700_000_000)
    (row,) = compare_formats({GGUF: gguf(entries=[entry])}).variants
    assert row.memory_bytes == 700_000_000


def test_another_protocol_or_source_commit_is_listed_apart() -> None:
    old = samples.PROTOCOL.model_copy(update={"version": 1})
    other = samples.entry("gptq", "gptq-3bit-64g", bits=3.9, divergence=0.3, protocol=old)
    moved = samples.entry("gptq", "gptq-2bit-64g", bits=2.9, divergence=0.3)
    moved = moved.model_copy(update={"recipe": moved.recipe.model_copy(update={"source_sha": "9" * 40})})
    found = compare_formats({GGUF: gguf(), GPTQ: samples.gguf(entries=[other, moved], format="gptq")})

    assert [row.name for row in found.variants] == ["gguf Q8_0", "gguf Q4_K_M"]
    assert [(row.variant, row.reason) for row in found.others] == [
        ("gptq-3bit-64g", "measured on 40 windows of 512 tokens of wikitext-2-raw-test, version 1 of the protocol"),
        ("gptq-2bit-64g", "made from commit 99999999 of the source, the others from 12fd25f7"),
    ]
    page = as_markdown(found, Place("press"))
    assert "version 1 of the protocol" in page.partition("## Not comparable")[2]
    assert "gptq-3bit-64g" not in page.partition("## Not comparable")[0]


def moved(entry: Entry, sha: str) -> Entry:
    return entry.model_copy(update={"recipe": entry.recipe.model_copy(update={"source_sha": sha})})


def test_while_the_source_moves_the_page_names_the_commit_of_its_rows_and_that_commits_base() -> None:
    """The GGUF repo follows the source: its manifest names the new commit, and one of its two variants is made anew."""
    new = "9" * 40
    q8, q4 = gguf().entries
    base = samples.evaluation(99.0)
    following = gguf(entries=[moved(q8, new), q4], source=samples.source(sha=new), baselines=[base])

    found = compare_formats({GGUF: following})
    with_both = compare_formats({GGUF: following, GPTQ: gptq()})

    for each in (compare_formats({GGUF: following.model_copy(update={"entries": [q4]})}), with_both):
        assert each.source.sha == samples.SHA
    assert [row.name for row in with_both.variants] == ["gptq-8bit-64g", "gptq-4bit-64g", "gguf Q4_K_M"]
    assert [(row.variant, row.reason) for row in with_both.others] == [
        ("Q8_0", "made from commit 99999999 of the source, the others from 12fd25f7")
    ]
    assert with_both.reference is not None and with_both.reference.perplexity == 16.11
    # One variant is of each commit, so the first one's commit wins. The base (the unquantized figures) is of it too.
    assert (found.source.sha, found.reference) == (new, base)


def test_a_base_of_another_commit_is_none() -> None:
    new = samples.source(sha="9" * 40, license="mit")
    manifest = gguf(source=new, baselines=[samples.evaluation(99.0)])

    assert compare_formats({GGUF: manifest}).source == samples.source(license="mit")
    earlier = [Earlier(tag="before", source=samples.source(), changed=[])]
    found = compare_formats({GGUF: manifest.model_copy(update={"earlier": earlier})})
    assert (found.source, found.reference) == (samples.source(), None)


def test_what_is_withheld_is_not_compared() -> None:
    bad = samples.entry("gguf", "Q2_K", bits=2.9, divergence=9.0, withheld="too far")
    assert compare_formats({GGUF: gguf(entries=[bad])}).variants == []


def test_a_broken_variant_is_left_out_and_a_broken_reference_has_no_figure(tmp_path: Path) -> None:
    nan = float("nan")
    bad = measured(samples.entry("gguf", "Q2_K", bits=2.9, divergence=9.0, withheld="broken"), 1, perplexity=nan)
    reference = samples.evaluation(16.1).model_copy(update={"perplexity": nan, "perplexity_error": nan})
    manifest = gguf(entries=[*gguf().entries, bad], baselines=[reference])

    commit = compose_comparison({GGUF: manifest}, Place("press"), tmp_path)

    assert "perplexity.png" in commit.uploads
    assert isinstance(page := commit.uploads["README.md"], bytes)
    assert "| *unquantized* | llama.cpp | - | - | 400\u00a0MB | - | - ± - | 0 |" in page.decode().replace(MISSING, "-")
    assert "Q2_K" not in page.decode()


def test_the_figures_are_the_manifests() -> None:
    row = json.loads(as_json(compared()))["variants"][1]
    assert (row["format"], row["variant"], row["divergence"], row["memory_bytes"]) == (
        "gguf", "Q8_0", 0.004, 300_000_000,
    )  # fmt: skip
    (first, *_) = csv.DictReader(io.StringIO(as_csv(compared())))
    assert (first["variant"], first["divergence"], first["protocol_windows"]) == ("gptq-8bit-64g", "0.002", "40")
    page = as_markdown(compared(), Place("press"))
    assert (
        "| **[gguf Q8\\_0](https://huggingface.co/press/M-GGUF/tree/main)** | llama.cpp | 143\u00a0MB | 8.50 |" in page
    )
    assert (
        "| 2.00\u00a0GB | **gptq-8bit-64g** | transformers: gptq-8bit-64g (KLD 0.0020, 1.50\u00a0GB); llama.cpp" in page
    )
    assert "- transformers: CPU X" in page


def test_the_repository_holds_page_plots_and_data_and_equal_manifests_give_equal_bytes(tmp_path: Path) -> None:
    one, two = (compose_comparison({GGUF: gguf(), GPTQ: gptq()}, Place("press"), tmp_path / name) for name in "ab")

    plots = {"divergence.png", "divergence-memory.png", "perplexity.png", "perplexity-memory.png"}
    assert set(one.uploads) == plots | {
        "README.md",
        "comparison.csv",
        "comparison.html",
        "comparison.json",
        "made_from.json",
    }
    contents = [
        {name: item if isinstance(item, bytes) else item.read_bytes() for name, item in each.uploads.items()}
        for each in (one, two)
    ]
    assert contents[0] == contents[1]
    assert b"/press/SmolLM2-135M-Instruct-quantized/resolve/main/divergence-memory.png" in contents[0]["README.md"]
    assert contents[0]["comparison.html"].count(b'src="data:image/png;base64,') == 4


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]


def test_the_html_page_links_repositories_and_variants_as_the_markdown_does() -> None:
    entry = samples.entry("gguf", "Q8_0", bits=8.5, divergence=0.004, branch='a/b"><script>')
    apart = moved(samples.entry("gguf", "Q6_K", bits=6.5, divergence=0.01), "9" * 40)
    found = compare_formats({GGUF: gguf(entries=[entry]), "press/Old-GGUF": gguf(entries=[apart])})

    page, within = as_html(found, Place("press")), as_html(found, Place("press", "http://hub.example"))

    variant = "/press/M-GGUF/tree/a%2Fb%22%3E%3Cscript%3E"
    assert f'<td><a href="https://huggingface.co{variant}">gguf Q8_0</a></td>' in page
    assert '(<a href="https://huggingface.co/press/Old-GGUF">press/Old-GGUF</a>): made from commit' in page
    assert 'the manifests of <a href="https://huggingface.co/press/M-GGUF">press/M-GGUF</a>, <a' in page
    assert f'<td><a href="{variant}">gguf Q8_0</a></td>' in within
    assert "huggingface.co" not in within
    assert variant in as_markdown(found, Place("press"))


def test_names_from_the_hub_are_text() -> None:
    name = '"><script>alert(1)</script>|`x`'
    entry = samples.entry("gguf", name, bits=8.5, divergence=0.004)
    runner = entry.evaluation.model_copy(update={"runner": "<img src=x onerror=y>"})
    found = compare_formats({GGUF: gguf(entries=[entry.model_copy(update={"evaluation": runner})])})

    tags = Tags()
    tags.feed(as_html(found, Place("press")))

    assert "script" not in tags.found and "img" not in tags.found
    assert "<script" not in as_markdown(found, Place("press"))
    formula = entry.model_copy(update={"branch": "=HYPERLINK(1)"})
    assert "'=HYPERLINK(1)" in as_csv(compare_formats({GGUF: gguf(entries=[formula])}))


def test_nothing_to_compare_is_one_clear_line() -> None:
    with pytest.raises(BadInput, match="no manifest to compare: press the model first"):
        compare_formats({})
