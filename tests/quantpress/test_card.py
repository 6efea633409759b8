"""Cards as readers and the Hub see them: front matter parsed by huggingface_hub, Markdown rendered to HTML."""

from __future__ import annotations

import html
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from pydantic import ValidationError

from quantpress.card import LONGEST_CHAT_TEMPLATE, CardContext, render_card
from quantpress.card_figures import MISSING
from quantpress.card_markdown import code, escape, fence, link, one_line
from quantpress.errors import QuantpressError
from quantpress.evaluation.comparison import flags
from quantpress.evaluation.record import Protocol
from quantpress.manifest import Alias, Manifest
from tests.quantpress import samples

CHATML = "{% for message in messages %}{{ '<|im_start|>' + message['role'] }}{% endfor %}"


def context(manifest: Manifest, **changes: object) -> CardContext:
    values: dict[str, object] = {
        "repo_id": f"press/SmolLM2-135M-Instruct-{manifest.format.upper()}",
        "quantized_by": "press",
    }
    return CardContext.model_validate(values | changes)


def card(manifest: Manifest, **changes: object) -> str:
    return render_card(manifest, context(manifest, **changes))


def html_of(text: str) -> str:
    return str(MarkdownIt("gfm-like", {"linkify": False}).render(text.split("---\n", 2)[2]))


def front_matter_of(text: str) -> dict[str, Any]:
    return yaml.safe_load(str(ModelCard(text, ignore_metadata_errors=False).data)) or {}


def table_rows(text: str, heading: str) -> list[list[str]]:
    """Cells, without mark-up, of the first table whose first heading is this."""
    for table in re.findall(r"<table>.*?</table>", html_of(text), re.S):
        rows = [
            [
                re.sub(r"<[^>]*>", "", cell).replace("\u00a0", " ")
                for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row)
            ]
            for row in re.findall(r"<tr>(.*?)</tr>", table, re.S)
        ]
        if rows[0][0] == heading:
            return rows
    raise AssertionError(f"no table with the heading {heading}")


def test_the_hub_reads_the_front_matter() -> None:
    data = front_matter_of(card(samples.gguf(), chat_template=CHATML))
    assert data == {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "base_model_relation": "quantized",
        "quantized_by": "press",
        "license": "apache-2.0",
        "language": ["en"],
        "pipeline_tag": "text-generation",
        "library_name": "gguf",
        "tags": ["gguf", "quantpress", "imatrix", "conversational", "llama", "smol"],
    }
    assert yaml.safe_load(str(ModelCardData(**data))) == data


@pytest.mark.parametrize(
    ("manifest", "library", "tag"), [(samples.gptq(), "transformers", "gptq"), (samples.awq(), "transformers", "awq")]
)
def test_checkpoints_are_for_transformers(manifest: Manifest, library: str, tag: str) -> None:
    data = front_matter_of(card(manifest))
    assert data["library_name"] == library
    assert data["tags"] == [tag, "quantpress", "llama", "smol"]


def test_a_relative_licence_link_leads_to_the_source() -> None:
    source = samples.source(license="other", license_name="smol-license", license_link="LICENSE")
    data = front_matter_of(card(samples.gguf(source=source)))
    assert data["license_link"] == (
        f"https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct/blob/{samples.SHA}/LICENSE"
    )


def test_the_table_shows_what_was_measured() -> None:
    rows = table_rows(card(samples.gguf(), source_bytes=269_060_552), "Variant")
    assert rows[0] == ["Variant", "Bits per weight", "Size", "Perplexity", "Mean KLD", "Same top", "Note"]
    assert rows[1] == ["unquantized", "\u2013", "269 MB", "16.10 ± 0.19", "0", "100 %", ""]
    assert rows[2] == ["Q8_0", "8.51", "143 MB", "16.12 ± 0.19", "0.0012", "98.6 %", ""]
    assert len(rows) == 16
    sizes = [float(row[2].split()[0]) for row in rows[2:]]
    assert sizes == sorted(sizes, reverse=True)


def test_every_variant_links_to_its_file() -> None:
    page = html_of(card(samples.gguf()))
    base = "https://huggingface.co/press/SmolLM2-135M-Instruct-GGUF/resolve/main/SmolLM2-135M-Instruct"
    for variant in samples.FOURTEEN:
        assert f'<a href="{base}-{variant}.gguf">{variant}</a>' in page


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


def test_withheld_variants_stand_with_their_reason_and_nowhere_else() -> None:
    withheld = samples.entry("gguf", "Q2_K", bits=5.1, divergence=2.0, withheld="mean KLD 2.0 is above 0.5")
    manifest = samples.gguf()
    text = card(manifest.model_copy(update={"entries": [*manifest.entries[1:], withheld]}))
    rows = table_rows(text.split("## Withheld")[1].join(["---\n---\n", ""]), "Variant")
    assert [(row[0], row[-1]) for row in rows[1:]] == [("Q2_K", "mean KLD 2.0 is above 0.5")]
    assert text.count("Q2") == 1


def test_commands_use_a_recommended_variant() -> None:
    text = card(samples.gguf())
    assert "llama-cli -hf press/SmolLM2-135M-Instruct-GGUF:Q3_K_S\n" in text
    assert "ollama run hf.co/press/SmolLM2-135M-Instruct-GGUF:Q3_K_S\n" in text
    assert "hf download press/SmolLM2-135M-Instruct-GGUF SmolLM2-135M-Instruct-Q3_K_S.gguf --local-dir .\n" in text


def test_a_sharded_variant_is_not_offered_to_ollama() -> None:
    parts = [f"Big-Q8_0-0000{part}-of-00002.gguf" for part in (1, 2)]
    text = card(samples.gguf(entries=[samples.entry("gguf", "Q8_0", bits=8.5, divergence=0.001, files=parts)]))
    assert "Ollama" not in text
    assert "--include '*Q8_0*.gguf'" in text
    assert "(2 parts)" in text


def test_another_hub_is_named_and_ollama_takes_the_file() -> None:
    text = card(samples.gguf(), target_endpoint="http://127.0.0.1:8421/")
    assert "export HF_ENDPOINT=http://127.0.0.1:8421\n" in text
    assert "hf.co/" not in text
    assert "ollama create smollm2-135m-instruct -f Modelfile" in text
    assert "](/press/SmolLM2-135M-Instruct-GGUF/resolve/main/SmolLM2-135M-Instruct-Q8_0.gguf)" in text
    assert "HF_ENDPOINT" not in card(samples.gguf(), target_endpoint="https://huggingface.co")


def test_an_endpoint_with_credentials_is_refused() -> None:
    with pytest.raises(ValidationError, match="without credentials"):
        context(samples.gguf(), target_endpoint="https://user:secret@hub.example")


def test_gptq_lists_branches_with_their_settings() -> None:
    text = card(samples.gptq())
    rows = table_rows(text.split("How they were made:")[1].join(["---\n---\n", ""]), "Branch")
    assert rows[0] == [
        "Branch", "Bits", "Group size", "Act order", "Damp", "Symmetric", "Calibration text", "Samples \u00d7 tokens",
    ]  # fmt: skip
    assert rows[2] == ["gptq-4bit-32g-actorder_True", "4", "32", "yes", "0.05", "yes", "pydoc-topics", "128 \u00d7 512"]
    assert "llama" not in text.split("## Download and run")[1].split("## What")[0].lower()


def test_a_branch_card_shows_its_own_variant_and_asks_for_its_revision() -> None:
    branch = "gptq-4bit-32g-actorder_True"
    text = card(samples.gptq(), branch=branch)
    assert [row[0] for row in table_rows(text, "Branch")[1:]] == ["unquantized", branch]
    assert f"hf download press/SmolLM2-135M-Instruct-GPTQ --revision {branch} --local-dir" in text
    assert f"vllm serve press/SmolLM2-135M-Instruct-GPTQ --revision {branch}\n" in text
    assert f"quantpress verify press/SmolLM2-135M-Instruct-GPTQ --revision {branch}\n" in text
    assert "Which one" not in text


def test_gptq_commands_take_main_unless_another_branch_dominates_it() -> None:
    assert "vllm serve press/SmolLM2-135M-Instruct-GPTQ\n" in card(samples.gptq())
    worse = samples.entry("gptq", "worse", bits=7.0, divergence=0.5, branch="main")
    manifest = samples.gptq()
    text = card(manifest.model_copy(update={"entries": [worse, *manifest.entries[1:]]}))
    assert "vllm serve press/SmolLM2-135M-Instruct-GPTQ --revision gptq-8bit-64g-actorder_True\n" in text


def test_hashes_are_those_of_the_branch() -> None:
    text = card(samples.gptq())
    sums = text.split("<summary>SHA-256 of the files of this branch</summary>")[1].split("</details>")[0]
    assert sums.count("model.safetensors") == 1
    assert card(samples.gguf()).count("  SmolLM2-135M-Instruct-Q8_0.gguf\n") == 1


@pytest.mark.parametrize("template", [None, CHATML])
@pytest.mark.parametrize("manifest", [samples.gptq(), samples.awq()], ids=["gptq", "awq"])
def test_the_python_of_a_card_compiles(manifest: Manifest, template: str | None) -> None:
    snippets = re.findall(r"```python\n(.*?)```", card(manifest, chat_template=template), re.S)
    assert len(snippets) == 1
    for snippet in snippets:
        compile(snippet, "card", "exec")


def test_plots_stand_only_where_they_are_published() -> None:
    assert card(samples.gguf()).count("\n![") == 2
    assert "\n![" not in card(samples.gguf(shared=[]))


def test_a_card_without_published_variants_is_still_a_card() -> None:
    only = samples.entry("gguf", "Q2_K", bits=2.9, divergence=9.0, withheld="does not load")
    text = card(samples.gguf(entries=[only], shared=[]))
    assert "## Withheld" in text and "does not load" in text
    assert "## Download" not in text and "## Files" not in text


def test_what_was_found_faulty_after_upload_is_told_before_all_advice() -> None:
    manifest = samples.gguf({"Q4_K_M": 6.17, "Q8_0": 8.51})
    assert "Found faulty" not in card(manifest)
    faulty = manifest.entries[0].model_copy(update={"problems": ["does not load and generate", "a|b"]})
    text = card(samples.gguf(entries=[faulty, manifest.entries[1]]))
    assert table_rows(text, "Variant")[1:] == [["Q4_K_M", "does not load and generate; a|b"]]
    assert text.index("## Found faulty") < text.index("## Which one")


def test_equal_input_gives_equal_cards_whatever_the_order_of_sets() -> None:
    program = (
        "import sys; from tests.quantpress import samples; from tests.quantpress.test_card import CHATML, card; "
        "sys.stdout.write(card(samples.gptq(), chat_template=CHATML) + card(samples.gguf()))"
    )
    first, second = (
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    )
    assert first.count(b"# SmolLM2-135M-Instruct") == 2
    assert first == second


def test_a_format_without_template_is_one_clear_line() -> None:
    with pytest.raises(QuantpressError, match=r"no card template exl9\.md\.jinja in .*: add one for the format"):
        card(samples.gguf(format="exl9"))


HOSTILE = (
    "x\n---\nlicense: mit\n# |a|b|`c``d` <script>alert(1)</script> [l](javascript:alert(1)) "
    "{{ 7*7 }} {% raw %} \u202e$$"
)


def test_hostile_names_stay_text() -> None:
    source = samples.source(
        repo=HOSTILE,
        license="other",
        license_name=HOSTILE,
        license_link="javascript:alert(1)",
        language=[HOSTILE],
        pipeline_tag=HOSTILE,
        tags=[HOSTILE, "fine"],
    )
    entries = [
        samples.entry("gguf", HOSTILE, bits=8.5, divergence=0.001, files=[HOSTILE + ".gguf"], types={HOSTILE: 5}),
        samples.entry("gguf", "Q4_0", bits=4.6, divergence=0.02, withheld=HOSTILE),
    ]
    manifest = samples.gguf(source=source, model_name=HOSTILE, entries=entries, toolchain={HOSTILE: HOSTILE})
    text = card(manifest, chat_template=CHATML)
    data = front_matter_of(text)
    flat = re.sub(r"\s+", " ", HOSTILE).replace("\u202e", "")
    assert data["license"] == "other"
    assert data["license_name"] == data["base_model"] == flat
    assert data["tags"] == ["gguf", "quantpress", "imatrix", "conversational", "fine"]
    assert "pipeline_tag" not in data and "license_link" not in data
    page = html_of(text)
    assert "<script" not in page and 'href="javascript' not in page
    assert "7*7" in page and "49" not in page.split("Provenance")[0].replace(samples.SHA, "")
    for table in re.findall(r"<table>.*?</table>", page, re.S):
        assert len({row.count("</t") for row in re.findall(r"<tr>(.*?)</tr>", table, re.S)}) == 1
    assert page.count("<h1") == 1


@pytest.mark.parametrize("branch", ["x; rm -rf ~", "$(reboot)", "a b", "`id`"])
def test_shell_commands_quote_what_is_not_a_word(branch: str) -> None:
    entry = samples.entry("gptq", "v", bits=4.0, divergence=0.1, branch=branch)
    text = card(samples.gptq(entries=[entry]), branch=branch)
    assert f"--revision '{branch}'" in text


def test_a_chat_template_is_shown_and_never_run() -> None:
    hostile = (
        "{{ 7*7 }} {% include 'base.md.jinja' %}\n```\n````\n</details><script>alert(1)</script>\n{{ cycler.__init__ }}"
    )
    text = card(samples.gguf(), chat_template=hostile)
    assert f"`````jinja\n{hostile}\n`````\n" in text
    page = html_of(text)
    assert "<script>" not in page
    assert page.count("<details>") == page.count("</details>")


def test_a_huge_chat_template_is_cut_with_a_note() -> None:
    text = card(samples.gguf(), chat_template="{# x #}\n" * 1_310_720)
    assert len(text) < LONGEST_CHAT_TEMPLATE + 20_000
    assert "Cut here after 16,000 of 10,485,760 characters" in text


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_escaped_text_shows_itself(text: str) -> None:
    """Whatever the text, a paragraph of it is one paragraph of just that text, and a cell stays one cell."""
    markdown = MarkdownIt("gfm-like", {"linkify": False})
    paragraph = markdown.render(f"a {escape(text)} z")
    assert paragraph.startswith("<p>") and paragraph.endswith("</p>\n") and paragraph.count("<") == 2
    assert html.unescape(paragraph[3:-5]).split() == ["a", *one_line(text).split(), "z"]
    table = markdown.render(f"|h|i|\n|--|--|\n|{escape(text)}|{code(text)}|")
    assert table.count("<td") == 2


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="`~\n \ra{}%", max_size=60))
def test_no_text_leaves_its_fence(text: str) -> None:
    page = MarkdownIt("gfm-like", {"linkify": False}).render(f"{fence(text, 'jinja')}\n\nafter\n")
    assert page.startswith("<pre><code") and page.endswith("</code></pre>\n<p>after</p>\n")
    assert page.count("<pre>") == 1


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.org/a b)", "[x](https://example.org/a%20b%29)"),
        ("/press/model", "[x](/press/model)"),
        ("javascript:alert(1)", "x"),
        ("data:text/html,x", "x"),
        (None, "x"),
    ],
)
def test_links_lead_to_web_addresses_only(url: str | None, expected: str) -> None:
    assert link("x", url) == expected


def test_the_templates_are_found_in_the_repository(tmp_path: Path) -> None:
    assert {path.name for path in context(samples.gguf()).templates.glob("*.jinja")} >= {
        "base.md.jinja", "gguf.md.jinja", "gptq.md.jinja", "awq.md.jinja",
    }  # fmt: skip
    with pytest.raises(QuantpressError, match="no card template"):
        card(samples.gguf(), templates=tmp_path)


def test_what_would_be_the_same_file_is_named_once() -> None:
    manifest = samples.gguf({"Q3_K_S": 3.5, "Q8_0": 8.5})
    entry = manifest.entries[0]
    recipe = entry.recipe.model_copy(update={"variant": "Q2_K"})
    alias = Alias(recipe=recipe, fingerprint=recipe.fingerprint, same_as="Q3_K_S")
    text = card(manifest.model_copy(update={"aliases": [alias]}))
    assert "of the same type as in another file of this model: `Q2_K` (take `Q3_K_S`)." in text
    assert "of the same type as in another file" not in card(manifest)


def sentences(text: str) -> dict[str, str]:
    """Variant to sentence, of the list that says whom each is for."""
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
    """The errors are 3 % of the means: 0.0010 each, 0.0014 of the difference."""
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


def test_what_a_variant_writes_is_shown_and_stays_text() -> None:
    entry = samples.entry("gguf", "Q8_0", bits=8.5, divergence=0.004)
    evaluation = entry.evaluation.model_copy(update={"sample": "a girl | <script>alert(1)</script>\n# named"})
    text = card(samples.gguf(entries=[entry.model_copy(update={"evaluation": evaluation})]))
    rows = table_rows(text.split("What each variant writes")[1].join(["---\n---\n", ""]), "Variant")
    assert html.unescape(rows[1][1]) == "a girl | <script>alert(1)</script> # named"
    assert "<script>" not in html_of(text)
    assert "What each variant writes" not in card(samples.gguf())


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


def test_an_alias_of_a_withheld_rung_is_not_to_be_taken() -> None:
    manifest = samples.gguf({"Q8_0": 8.5})
    withheld = samples.entry("gguf", "Q3_K_S", bits=3.5, divergence=2.0, withheld="too far")
    recipe = withheld.recipe.model_copy(update={"variant": "Q2_K"})
    alias = Alias(recipe=recipe, fingerprint=recipe.fingerprint, same_as="Q3_K_S")
    text = card(manifest.model_copy(update={"entries": [*manifest.entries, withheld], "aliases": [alias]}))
    assert "`Q2_K` (not published, like `Q3_K_S`)" in text
