"""The pages for people."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quantpress.localhub.markdown import render_card
from quantpress.localhub.modelcard import Card, faults, parse_card, read_card, tags

if TYPE_CHECKING:
    from tests.quantpress.localhub.conftest import LiveHub

CARD = """---
license: mit
base_model: maker/Tiny
---
# Tiny

| a | b |
|---|--:|
| 1 | 2 |

![plot](plots/p.png) [file](./x.gguf) [out](https://example.org/a) <script>alert(1)</script>
"""


def test_a_card_is_shown_with_its_images_and_links(live_hub: LiveHub) -> None:
    live_hub.create("pages")
    live_hub.add_text("README.md", CARD, "press/pages")
    page = live_hub.send("GET", "/press/pages")
    html = page.body.decode()
    assert page.status == 200 and "script-src" not in page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "<h1>Tiny</h1>" in html and '<td style="text-align:right">2</td>' in html
    assert '<img src="/press/pages/resolve/main/plots/p.png" alt="plot">' in html
    assert 'href="/press/pages/resolve/main/x.gguf"' in html and 'href="https://example.org/a"' in html
    assert "<script" not in html
    assert "license:mit" in html and "base_model:maker/Tiny" in html
    assert "hf download press/pages" in html


def test_lists_of_models_files_and_commits(live_hub: LiveHub) -> None:
    live_hub.create("listed")
    live_hub.add_text("sub/<b>.txt", "one", "press/listed")
    assert '<a href="/press/listed">press/listed</a>' in live_hub.send("GET", "/").body.decode()
    assert b"press/listed" in live_hub.send("GET", "/?search=LISTED").body
    assert b"press/listed" not in live_hub.send("GET", "/?search=absent").body
    assert b"sub/" in live_hub.send("GET", "/press/listed/tree/main").body
    inside = live_hub.send("GET", "/press/listed/tree/main/sub").body.decode()
    assert "&lt;b&gt;.txt" in inside and "<b>" not in inside and "3 B" in inside
    commits = live_hub.send("GET", "/press/listed/commits/main").body.decode()
    assert commits.index("Change") < commits.index("initial commit")


@pytest.mark.parametrize(
    "address", ["/press/absent", "/press/m/tree/absent", "/press/m/tree/main/absent", "/nothing", "/a/b/c/d"]
)
def test_what_is_not_there_is_not_found(live_hub: LiveHub, address: str) -> None:
    assert live_hub.send("GET", address).status == 404


def test_search_words_are_text(live_hub: LiveHub) -> None:
    html = live_hub.send("GET", '/?search="><script>alert(1)</script>'.replace(" ", "%20")).body.decode()
    assert "<script" not in html


HOSTILE = [
    "<script>", "](javascript:alert(1))", "[x", "![x](", '"onerror=', "<img src=x onerror=1>", "&#x6a;", "`", "\n", "|",
    "<svg onload=1>", "](data:text/html,x)", "](//evil", ")",
]  # fmt: skip


class _Elements(HTMLParser):
    """Collects what a browser would make of a text: elements with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@given(st.text(max_size=200) | st.lists(st.sampled_from(HOSTILE), max_size=12).map("".join))
@example("[x](javascript:alert(1)) <img src=x onerror=1>")
def test_no_card_brings_a_script(text: str) -> None:
    for tag, attributes in _Elements(render_card(text, "/press/m/resolve/main/")).found:
        assert tag not in ("script", "style", "svg", "iframe", "object", "form")
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("href", "src"):
            target = (attributes.get(name) or "").strip().lower()
            assert not target.startswith(("javascript:", "data:", "vbscript:")), target


def test_tags_are_derived_as_on_the_hub() -> None:
    data = {
        "library_name": "gguf",
        "pipeline_tag": "text-generation",
        "tags": ["press"],
        "language": "en",
        "license": "mit",
        "base_model": ["a/b"],
        "base_model_relation": "quantized",
    }
    assert tags(data, ["x-Q4_K_M.GGUF", "README.md"]) == [
        "gguf", "text-generation", "press", "en", "base_model:a/b", "base_model:quantized:a/b", "license:mit",
    ]  # fmt: skip


def test_metadata_that_the_hub_would_refuse_is_named() -> None:
    assert faults({"license": "mit", "base_model_relation": "quantized", "tags": ["a"]}) == []
    assert faults({"base_model_relation": "shrunk"}) == [
        '"base_model_relation" must be one of adapter, merge, quantized, finetune'
    ]
    assert faults({"tags": ["a", 1]}) == ['"tags" must be a string or a list of strings']


@given(st.text())
def test_any_text_is_a_card(text: str) -> None:
    content = text.encode(errors="replace")
    assert isinstance(read_card(content).text, str)
    assert isinstance(read_card(b"---\n" + content + b"\n---\n").text, str)


@pytest.mark.parametrize(
    ("card", "data", "text"),
    [
        ("---\na: x---\nb: y\n---\ntext", {"a": "x---", "b": "y"}, "text"),
        ("---\na: '\n\n  ---\n\n  b: c'\n---\n", {"a": "\n---\nb: c"}, ""),
        ("---\n---\ntext", {}, "text"),
        ("---\r\na: 1\r\n---\r\ntext", {"a": 1}, "text"),
    ],
)
def test_only_a_line_of_its_own_ends_the_metadata(card: str, data: dict[str, object], text: str) -> None:
    assert parse_card(card) == Card(data, text)
