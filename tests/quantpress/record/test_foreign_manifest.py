"""A manifest that somebody else wrote: what is out of bounds is refused, with the place, before anything uses it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantpress.comparison.state import ComparisonState
from quantpress.errors import Unreadable
from quantpress.record.manifest import Manifest, parse_manifest
from tests.support import samples
from tests.support.foreign import JSON

SOUND: dict[str, Any] = json.loads(samples.gguf().to_json())
FILE = ("entries", 0, "artifact", "files", 0)
Place = tuple[str | int, ...]


def changed(place: Place, value: Any) -> bytes:
    manifest = json.loads(json.dumps(SOUND))
    part = manifest
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    return json.dumps(manifest).encode()


def places(part: Any, place: Place = ()) -> list[Place]:
    """Every place of a manifest, at any depth."""
    inner = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    return [found for key, value in inner for found in ((*place, key), *places(value, (*place, key)))]


def test_our_own_manifest_is_sound() -> None:
    assert parse_manifest(json.dumps(SOUND), "press/M") == samples.gguf()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("entries", 0, "artifact", "files"), []),
        ((*FILE, "size"), -1),
        ((*FILE, "sha256"), "../x"),
        ((*FILE, "path"), "\x1b[2J.gguf"),
        ((*FILE, "path"), "../../.ssh/authorized_keys"),
        ((*FILE, "path"), "a\nb.gguf"),
        ((*FILE, "path"), "a\u202eb.gguf"),
        ((*FILE, "path"), "a" * 301),
        (("entries", 0, "artifact", "tensor_types"), {"Q4_K": -5}),
        (("entries", 0, "artifact", "details"), {"weights": 10**30}),
        (("entries", 0, "recipe", "variant"), "\x1b]0;Q4\x07"),
        (("entries", 0, "recipe", "source"), "../../etc/passwd"),
        (("entries", 0, "recipe", "source_sha"), "../x"),
        (("entries", 0, "recipe", "parameters"), {"a": [[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]}),
        (("entries", 0, "branch"), ""),
        (("model_name",), "../up"),
        (("source", "repo"), "a"),
    ],
)
def test_what_is_out_of_bounds_is_named(place: Place, value: Any) -> None:
    with pytest.raises(Unreadable) as said:
        parse_manifest(changed(place, value), "evil/M")
    dotted = ".".join(str(part) for part in place)
    assert str(said.value).startswith(f"evil/M: quantpress.json is not a manifest of this version ({dotted}")
    assert "\x1b" not in str(said.value) and "\n" not in str(said.value)


def test_a_size_of_3018_digits_is_refused() -> None:
    text = changed((*FILE, "size"), 10**3018)
    with pytest.raises(Unreadable, match=r"evil/M: .*files\.0\.size"):
        parse_manifest(text, "evil/M")


@pytest.mark.foreign
@given(st.sampled_from(places(SOUND)), JSON)
def test_any_change_is_read_or_refused(place: Place, value: Any) -> None:
    """What is read can be written, and computed with."""
    try:
        manifest = parse_manifest(changed(place, value), "evil/M")
    except Unreadable as refusal:
        assert "\n" not in str(refusal) and "\x1b" not in str(refusal)
        return
    assert Manifest.model_validate_json(manifest.to_json()) == manifest
    for entry in manifest.entries:
        assert entry.artifact.files and f"{entry.artifact.size / 1e6:,.1f}"
        assert len(entry.recipe.fingerprint) == 64


@pytest.mark.foreign
@given(st.one_of(JSON.map(lambda value: json.dumps(value).encode()), st.binary(max_size=40)))
def test_any_json_is_no_manifest(content: bytes) -> None:
    with pytest.raises(Unreadable):
        parse_manifest(content, "evil/M")
    with pytest.raises(ValueError, match="validation error"):
        ComparisonState.model_validate_json(content)
