"""Renders a model card's Markdown as HTML that is safe to show on the Hub's own pages.

The parser keeps raw HTML in the card, as the public Hub does. A sanitizer then keeps only a short list of tags and
attributes. The sanitizer is needed because anybody can write a card, and nothing in the card may run in the reader's
browser.

A text of a few kilobytes can take minutes: the time grows with the square of the nesting, here and in all such
libraries. So cards are rendered in a process of their own, which the system ends (rendering.py).
"""

from __future__ import annotations

from urllib.parse import quote, urlsplit

_TAGS = {
    "a", "blockquote", "br", "code", "del", "details", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "img", "li",
    "ol", "p", "pre", "s", "strong", "summary", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
_ATTRIBUTES = {
    "a": {"href", "title"},
    "img": {"src", "alt", "title"},
    "ol": {"start"},
    "td": {"style"},
    "th": {"style"},
}


def render_card(text: str, files_address: str) -> str:
    """Returns a card as HTML.

    Puts ``files_address``, which ends in "/", before relative addresses of links and images.
    """
    import nh3
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    tokens = parser.parse(text)
    for token in tokens:
        for child in token.children or []:
            for attribute in ("src", "href"):
                target = child.attrs.get(attribute)
                if isinstance(target, str):
                    child.attrs[attribute] = _absolute(target, files_address)
    html = parser.renderer.render(tokens, parser.options, {})
    return nh3.clean(
        html,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        url_schemes={"http", "https", "mailto"},
        filter_style_properties={"text-align"},
    )


def _absolute(target: str, files_address: str) -> str:
    try:
        parts = urlsplit(target)
    except ValueError:
        return "#"
    if parts.scheme or parts.netloc or target.startswith(("#", "/")):
        return target
    path = parts.path.removeprefix("./")
    return files_address + quote(path, safe="/%") + (f"#{parts.fragment}" if parts.fragment else "")
