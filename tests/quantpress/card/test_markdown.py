"""Strangers' text on a card stays text. It never becomes Markdown, a command or a template."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from pydantic import ValidationError

from quantpress.card.markdown import code, escape, fence, link
from quantpress.card.render import LONGEST_CHAT_TEMPLATE
from quantpress.text import one_line
from tests.support import samples
from tests.support.cards import CHATML, card, context, front_matter_of, html_of, table_rows


def test_an_endpoint_with_credentials_is_refused() -> None:
    with pytest.raises(ValidationError, match="without credentials"):
        context(samples.gguf(), target_endpoint="https://user:secret@hub.example")


HOSTILE = (
    "x\n---\nlicense: mit\n# |a|b|`c``d` <script>alert(1)</script> [l](javascript:alert(1)) "
    "{{ 7*7 }} {% raw %} \u202e$$"
)


def test_hostile_names_stay_text() -> None:
    """No record that is read holds such names of repositories, variants and files. The cards do not rely on it."""
    source = samples.source(
        license="other",
        license_name=HOSTILE,
        license_link="javascript:alert(1)",
        language=[HOSTILE],
        pipeline_tag=HOSTILE,
        tags=[HOSTILE, "fine"],
    ).model_copy(update={"repo": HOSTILE})
    entry = samples.entry("gguf", "Q8_0", bits=8.5, divergence=0.001)
    files = [file.model_copy(update={"path": HOSTILE + ".gguf"}) for file in entry.artifact.files]
    artifact = entry.artifact.model_copy(update={"files": files, "tensor_types": {HOSTILE: 5}})
    recipe = entry.recipe.model_copy(update={"variant": HOSTILE})
    entries = [
        entry.model_copy(update={"recipe": recipe, "artifact": artifact}),
        samples.entry("gguf", "Q4_0", bits=4.6, divergence=0.02, withheld=HOSTILE),
    ]
    manifest = samples.gguf(source=source, entries=entries, toolchain={HOSTILE: HOSTILE})
    manifest = manifest.model_copy(update={"model_name": HOSTILE})
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
    """A paragraph with any text is one paragraph of just that text, and a table cell with it stays one cell."""
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


def test_what_a_variant_writes_is_shown_and_stays_text() -> None:
    entry = samples.entry("gguf", "Q8_0", bits=8.5, divergence=0.004)
    evaluation = entry.evaluation.model_copy(update={"sample": "a girl | <script>alert(1)</script>\n# named"})
    text = card(samples.gguf(entries=[entry.model_copy(update={"evaluation": evaluation})]))
    rows = table_rows(text.split("What each variant writes")[1].join(["---\n---\n", ""]), "Variant")
    assert html.unescape(rows[1][1]) == "a girl | <script>alert(1)</script> # named"
    assert "<script>" not in html_of(text)
    assert "What each variant writes" not in card(samples.gguf())
