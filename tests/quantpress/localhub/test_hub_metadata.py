"""The front matter of a card, written by anybody."""

from __future__ import annotations

import itertools
import json
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quantpress.localhub.frontmatter import CardInvalid
from quantpress.localhub.modelcard import parse_card, read_card

if TYPE_CHECKING:
    from tests.quantpress.localhub.conftest import LiveHub

LAUGHS = "a: &a [1,1,1,1,1,1,1,1]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 8)}]\n" for before, name in itertools.pairwise("abcdefg")
)
#: Each line doubles the number of pairs that PyYAML would copy: 2**14 here, 2**24 with ten lines more.
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name}\n  <<: [*{before}, *{before}]\n" for before, name in itertools.pairwise("abcdefghijklmno")
)


@pytest.mark.parametrize(
    ("front", "fault"),
    [
        ("a: [", "expected"),
        ("- a", "not a mapping"),
        ("!!python/object/apply:os.system [true]", "type tag"),
        ("a: !!timestamp x", "type tag"),
        ("a: !!int ''", "type tag"),
        ("a: &a 1\nb: *a", "alias"),
        ("<<: {a: 1}", "merge key"),
        (LAUGHS, "alias"),
        (MERGES, "merge key"),
        ("a: " + "[" * 100_000, "levels"),
        ("? " * 50_000, "levels"),
        ("a: [" + "1," * 50_000 + "]", "values"),
        ("a: " + "1:" * 200_000 + "1", "digits"),
        ("a: 0x" + "f" * 5_000, "digits"),
        ("a: " + "x" * 600_000, "characters"),
        ('a: "\\ud800"', "invalid Unicode character"),
        ("a: 2024-99-99", "month"),
    ],
)  # fmt: skip
def test_hostile_metadata_is_invalid_and_counts_as_none(front: str, fault: str) -> None:
    card = f"---\n{front}\n---\ntext"
    started = time.process_time()
    with pytest.raises(CardInvalid, match=fault) as refused:
        parse_card(card)
    assert time.process_time() - started < 2
    assert "\n" not in str(refused.value)
    assert read_card(card.encode()).data is None
    assert read_card(card.encode()).text == "text"


@pytest.mark.parametrize(
    ("front", "data"),
    [
        ("a: '<<'", {"a": "<<"}),
        ("a: &a [1]", {"a": [1]}),
        ("a: 1:30\nb: 0x10\nc: 1_000\nd: .inf\ne: 1.5", {"a": 90, "b": 16, "c": 1000, "d": "inf", "e": 1.5}),
        ("1: 2024-01-31", {"1": "2024-01-31"}),
        ("a: 模型 🤗", {"a": "模型 🤗"}),
        ("a: [" + "x," * 10_000 + "]", {"a": ["x"] * 10_000}),
    ],
)
def test_usual_metadata_is_read(front: str, data: dict[str, object]) -> None:
    assert parse_card(f"---\n{front}\n---\n").data == data


# The pieces are those of YAML's own grammar, so that many examples are nearly right.
pieces = st.sampled_from(
    ["a", ": ", "- ", "\n", "  ", "[", "]", "{", "}", ",", "&a ", "*a", "<<", "!!int ", "!!set ", "? ", "|", ">", "'",
     '"', "0x", "1:", "2024-01-01", ".inf", "~", "%", "@", "\\ud800", "\t", "#"]
)  # fmt: skip


@given(st.lists(pieces, max_size=30).map("".join))
@example('a: "\\ud800"')
@example("a: !!timestamp x")
def test_any_metadata_is_an_answer_or_invalid(front: str) -> None:
    data = read_card(f"---\n{front}\n---\n".encode()).data
    assert json.loads(json.dumps(data, ensure_ascii=False, allow_nan=False).encode()) == data


def test_validation_takes_a_token_and_little_time(live_hub: LiveHub) -> None:
    def validate(token: str | None) -> int:
        body = json.dumps({"content": f"---\n{MERGES}\n---\n"}).encode()
        return live_hub.send("POST", "/api/validate-yaml", token=token, body=body).status

    assert validate(None) == 401
    assert validate(live_hub.read_token) == 400


def test_a_readme_of_merge_keys_does_not_hold_up_the_listing(live_hub: LiveHub) -> None:
    live_hub.create("merges")
    live_hub.add_text("README.md", f"---\n{MERGES}\n---\n# Merged\n", "press/merges")
    listed = live_hub.send("GET", "/api/models?search=press/merges&cardData=1").json()
    assert [model["cardData"] for model in listed] == [{}]
