"""Fingerprints of equal recipes are equal. If any input that decides bytes differs, the fingerprint differs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantpress.record.bounds import LARGEST_NUMBER
from quantpress.record.recipe import Calibration, Recipe, canonical_json

RECIPE = Recipe(
    format="gguf",
    variant="Q4_K_M",
    source="a/M",
    source_sha="1" * 40,
    quantizer="llama.cpp 1",
    parameters={"type": "Q4_K_M", "imatrix": True},
    calibration=Calibration(text="pydoc-topics", sha256="2" * 64, samples=64, length=512),
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-LARGEST_NUMBER, LARGEST_NUMBER) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_the_fingerprint_is_the_sha256_of_canonical_json() -> None:
    assert canonical_json({"b": [1, 2.5, None], "a": "é"}) == '{"a":"é","b":[1,2.5,null]}'
    assert RECIPE.fingerprint == "c2ade5605c21c32e80cbd31d9202a5b1a6be922e8c71741497a801cae60327db"


@pytest.mark.parametrize(
    "change",
    [
        {"variant": "Q5_K_M"},
        {"source_sha": "3" * 40},
        {"quantizer": "llama.cpp 2"},
        {"parameters": {"type": "Q4_K_M", "imatrix": False}},
        {"calibration": RECIPE.calibration.model_copy(update={"samples": 65})},
    ],
)
def test_every_input_changes_the_fingerprint(change: dict[str, Any]) -> None:
    assert RECIPE.model_copy(update=change).fingerprint != RECIPE.fingerprint


def test_variants_of_a_format_share_their_preparation() -> None:
    other = RECIPE.model_copy(update={"variant": "Q8_0", "parameters": {"type": "Q8_0"}})
    assert other.preparation_fingerprint == RECIPE.preparation_fingerprint
    moved = RECIPE.model_copy(update={"source_sha": "3" * 40})
    assert moved.preparation_fingerprint != RECIPE.preparation_fingerprint


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_key_order_never_matters_and_a_round_trip_keeps_the_fingerprint(parameters: dict[str, Any]) -> None:
    recipe = RECIPE.model_copy(update={"parameters": parameters})
    reordered = RECIPE.model_copy(update={"parameters": dict(reversed(list(parameters.items())))})
    assert recipe.fingerprint == reordered.fingerprint
    assert Recipe.model_validate_json(recipe.model_dump_json()).fingerprint == recipe.fingerprint
