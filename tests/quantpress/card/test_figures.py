"""What a card says of the measured figures: notes, advice, and a sentence for each rung (a GGUF variant)."""

from __future__ import annotations

import html
import math
import re

import pytest

from quantpress.card.figures import MISSING
from quantpress.evaluation.frontier import flags
from quantpress.record.measurement import Protocol
from tests.support import samples
from tests.support.cards import card, html_of, table_rows


def test_stand_in_types_are_named() -> None:
    text = card(samples.gguf())
    notes = {row[0]: row[-1] for row in table_rows(text, "Variant")}
    assert notes["Q4_K_M"] == "stored as Q5_0 69 %, Q8_0 31 %"
    assert notes["Q5_0"] == ""
    assert "`Q4_K_M` is really 6.17 bits per weight" in text


def test_no_stand_ins_where_llama_quantize_counted_none() -> None:
    entry = samples.entry("gguf", "Q4_K_M", bits=4.83, divergence=0.03, types={"Q4_K": 80, "Q6_K": 10, "Q8_0": 10})
    artifact = entry.artifact.model_copy(update={"details": {"fallbacks": 0}})
    assert "stored as" in card(samples.gguf(entries=[entry]))
    assert "stored as" not in card(samples.gguf(entries=[entry.model_copy(update={"artifact": artifact})]))


def test_a_type_of_next_to_nothing_is_not_said_to_be_none() -> None:
    entry = samples.entry("gguf", "Q4_K_S", bits=5.96, divergence=0.03, types={"Q4_K": 298, "Q5_0": 700, "Q5_1": 2})
    assert table_rows(card(samples.gguf(entries=[entry])), "Variant")[-1][-1] == "stored as Q5_0 70 %, Q5_1 under 1 %"


def test_a_type_that_the_rung_asks_for_stands_in_for_none() -> None:
    def shown(types: dict[str, int]) -> str:
        options = ["--token-embedding-type", "q8_0", "--output-tensor-type", "q8_0"]
        parameters: dict[str, object] = {"type": "Q4_K_M", "options": options, "from": "stored", "imatrix": True}
        entry = samples.entry("gguf", "Q4_K_L", bits=5.28, divergence=0.03, types=types, parameters=parameters)
        return card(samples.gguf(entries=[entry]))

    assert "stored as" not in shown({"Q4_K": 70, "Q6_K": 10, "Q8_0": 20})
    fallen_back = table_rows(shown({"Q5_0": 70, "Q6_K": 10, "Q8_0": 20}), "Variant")
    assert fallen_back[-1][-1] == "stored as Q5_0 70 %"


def test_no_dominated_variant_is_recommended() -> None:
    text = card(samples.gguf())
    which = text.split("## Which one")[1].split("## Files")[0]
    notes = {row[0]: row[-1] for row in table_rows(text, "Variant")}
    recommended = re.findall(r"^- \*\*(.+?)\*\*", which.replace("\\_", "_"), re.M)
    assert recommended == ["Q8_0", "Q5_0", "Q3_K_S"]
    assert notes["Q3_K_M"].endswith("worse than IQ4_XS, which has fewer bits, beyond the measurement error")
    assert not [name for name in recommended if "measures" in notes[name]]


def test_the_advice_follows_the_figures_not_the_names() -> None:
    entries = [
        samples.entry("gguf", "Q8_0", bits=8.5, divergence=0.5),
        samples.entry("gguf", "Q6_K", bits=6.6, divergence=0.3),
        samples.entry("gguf", "Q2_K", bits=3.0, divergence=0.004),
    ]
    which = card(samples.gguf(entries=entries)).split("## Which one")[1].split("## Files")[0]
    assert "Q8" not in which and "Q6" not in which
    assert "closest to the unquantized model; smallest within a mean KLD of 0.01; smallest of all" in which


def test_without_divergence_perplexity_decides() -> None:
    entries = [
        samples.entry("gguf", "Q8_0", bits=8.5, divergence=None, perplexity=16.12),
        samples.entry("gguf", "Q4_0", bits=4.6, divergence=None, perplexity=16.50),
    ]
    text = card(samples.gguf(entries=entries))
    assert "smallest within 1% of the unquantized model's perplexity" in text
    assert "Mean KLD" not in text


def test_figures_of_another_protocol_are_not_shown_beside() -> None:
    other = Protocol(text="pydoc-topics", text_sha256="e" * 64, windows=10)
    entries = [
        samples.entry("gguf", "Q8_0", bits=8.5, divergence=0.001),
        samples.entry("gguf", "Q6_K", bits=6.6, divergence=0.006),
        samples.entry("gguf", "Q4_0", bits=4.6, divergence=0.0001, protocol=other),
    ]
    text = card(samples.gguf(entries=entries))
    row = next(row for row in table_rows(text, "Variant") if row[0] == "Q4_0")
    assert row[3:6] == ["\u2013", "\u2013", "\u2013"]
    assert row[6] == "measured on 10 windows of pydoc-topics: not comparable with the others"
    assert "**Q4" not in text


def sentences(text: str) -> dict[str, str]:
    """Returns a dict from variant to sentence, read from the card's list that says whom each variant is for."""
    part = text.split("Whom each is for")[1].split("\n\n")[1].replace("\u00a0", " ").replace("\\_", "_")
    return dict(re.findall(r"^- \*\*(.+?)\*\*: (.+)$", part, re.M))


def test_every_rung_has_a_sentence_that_follows_from_its_figures() -> None:
    found = sentences(card(samples.gguf(), source_bytes=269_060_552))
    assert sorted(found) == sorted(samples.FOURTEEN)
    assert found["Q8_0"] == (
        "to keep the unquantized model's answers in less memory: it agrees with the unquantized model on 98.6 % of the "
        "next tokens at 53 % of its size."
    )
    assert found["Q4_K_M"] == (
        "for everyday use, at a small loss: it agrees with the unquantized model on 95.9 % of the next tokens at 39 % "
        "of its size; 0.5 % smaller than Q5_0, with 1.3 times its divergence."
    )
    assert found["Q4_0"] == (
        "only where IQ4_XS does not run: that is 2 % smaller and diverges less, 0.0141 against 0.0211."
    )


def test_the_same_rung_is_for_others_when_it_measures_otherwise() -> None:
    def sentence(divergence: float) -> str:
        entries = [
            samples.entry("gguf", "Q8_0", bits=8.5, divergence=0.001),
            samples.entry("gguf", "Q4_K_M", bits=4.9, divergence=divergence),
        ]
        return sentences(card(samples.gguf(entries=entries)))["Q4_K_M"].split(":")[0]

    assert [sentence(divergence) for divergence in (0.009, 0.04, 0.15, 0.5)] == [
        "to keep the unquantized model's answers in less memory",
        "for everyday use, at a small loss",
        "where memory is short, at a loss that shows",
        "to try the model where nothing larger fits, at a large loss",
    ]


@pytest.mark.parametrize(("divergence", "flagged"), [(0.0330, False), (0.0333, False), (0.0360, True)])
def test_more_bits_and_worse_is_flagged_beyond_error(divergence: float, flagged: bool) -> None:
    """The measurement errors are 3 % of the means, about 0.0010 each. The error of the difference is 0.0014."""
    entries = [
        samples.entry("gguf", "Q5_0", bits=6.2, divergence=divergence),
        samples.entry("gguf", "Q4_K_M", bits=6.1, divergence=0.0320),
    ]
    manifest = samples.gguf(entries=entries)
    said = "worse than Q4_K_M, which has fewer bits, beyond the measurement error"
    assert flags(manifest) == ({"Q5_0": said} if flagged else {})
    notes = {row[0]: row[-1] for row in table_rows(card(manifest), "Variant")}
    assert (notes["Q5_0"] == said) == flagged
    assert notes["Q4_K_M"] != said


def test_a_changed_limit_is_told_with_its_reason() -> None:
    entry = samples.entry("gguf", "Q8_0", bits=8.5, divergence=0.004)
    note = "the limit of its mean KLD is 0.006 for this model, not 0.003: <b>small</b>"
    verdict = entry.verdict.model_copy(update={"notes": [note]})
    text = card(samples.gguf(entries=[entry.model_copy(update={"verdict": verdict})]))
    assert "<li><strong>Q8_0</strong>: " + html.escape(note) in html_of(text)
    assert "Limits of the gate" not in card(samples.gguf())


def test_the_distribution_of_the_divergence_is_told() -> None:
    rows = table_rows(card(samples.gguf()).split("Divergence in detail")[1].join(["---\n---\n", ""]), "Variant")
    assert rows[0] == ["Variant", "Mean", "Median", "99 %", "99.9 %", "Maximum", "Same top"]
    assert rows[1] == ["Q8_0", "0.0012 ± 0.0000", "0.0007", "0.0105", "0.0349", "0.1046", "98.6 ± 0.3 %"]
    assert len(rows) == 15


def test_figures_that_are_not_finite_are_left_out_of_the_withheld_table() -> None:
    manifest = samples.gguf()
    bad = samples.entry("gguf", "Q2_K", bits=2.9, divergence=0.5, withheld="10200 of 10200 are not finite numbers")
    assert bad.evaluation.divergence is not None
    nothing = bad.evaluation.divergence.model_copy(update={"mean": math.nan, "mean_error": math.nan})
    evaluation = bad.evaluation.model_copy(update={"perplexity": math.nan, "divergence": nothing})
    bad = bad.model_copy(update={"evaluation": evaluation})

    text = card(manifest.model_copy(update={"entries": [*manifest.entries[1:], bad]}))

    assert f"| `Q2_K` | 48.8\u00a0MB | 2.90 | {MISSING} | {MISSING} | 10200 of 10200 are not finite numbers |" in text
    assert "nan" not in text.lower().partition("## withheld")[2].partition("## ")[0]
