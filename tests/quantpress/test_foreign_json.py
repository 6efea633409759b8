"""What is read of a stranger's JSON, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantpress.errors import Refused
from quantpress.foreign_json import parse_object
from tests.support.foreign import JSON


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "its config.json is not JSON"),
        (b"{", "its config.json is not JSON"),
        (b"\xff{}", "its config.json is not JSON"),
        (b"1" * 5000, "its config.json is not JSON"),
        (b"[]", "its config.json is not a JSON object"),
        (b'"x"', "its config.json is not a JSON object"),
        (nested(65), "its config.json is nested more than 64 levels deep: ask upstream to mend it"),
        (nested(700), "its config.json is nested more than 64 levels deep: ask upstream to mend it"),
        (nested(100_000), "its config.json is nested more than 64 levels deep: ask upstream to mend it"),
        (b'{"a": ["\\ud800"]}', "its config.json has a text that is not UTF-8: ask upstream to mend it"),
        (b'{"\\udfff": 1}', "its config.json has a text that is not UTF-8: ask upstream to mend it"),
    ],
    ids=["nothing", "open", "bytes", "digits", "list", "text", "deep", "deeper", "deepest", "half", "half-key"],
)
def test_what_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_object(content, "config.json")
    assert str(refused.value) == said


def test_what_transformers_writes_is_read() -> None:
    """transformers writes infinite limits (Mamba 2), and 10**30 for a tokenizer without a longest text."""
    assert parse_object(b'{"limit": [0.0, Infinity], "model_max_length": 1%s}' % (b"0" * 30), "c") == {
        "limit": [0.0, float("inf")],
        "model_max_length": 10**30,
    }
    assert parse_object(nested(64), "c")["a"]


@pytest.mark.foreign
@given(JSON)
def test_any_json_is_read_or_refused(value: Any) -> None:
    content = json.dumps(value).encode()
    try:
        assert parse_object(content, "c") == json.loads(content) or "nan" in content.decode().lower()
    except Refused as refusal:
        assert not isinstance(value, dict) or "UTF-8" in str(refusal)


@pytest.mark.foreign
@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        assert isinstance(parse_object(content, "c"), dict)
    except Refused as refusal:
        assert str(refusal).startswith("its c ")
