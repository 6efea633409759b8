"""The names of a GGUF repository's files, as clients read them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantizers.gguf.ladder import LADDERS, RUNGS
from quantizers.gguf.unquantized import file_stem
from quantpress.record.clients import resolve_by_rules

WORDS = ["tiny", "merge", "7B", "v2", "x", "imatrix", "mmproj", "mtp", "eagle3", "q8", *RUNGS]


def problems(model: str, ladder: list[str]) -> list[str]:
    stem = file_stem(model)
    files = {rung: f"{stem}-{rung}.gguf" for rung in ladder}
    resolved = resolve_by_rules(files, sorted([*files.values(), f"{stem}.imatrix.gguf", "README.md"]))
    return [each.problem for each in resolved if each.problem]


@pytest.mark.parametrize("ladder", LADDERS)
@pytest.mark.parametrize("model", ["tiny-Q4_K_M-merge", "SmolLM2-135M-Instruct", "llama-F16", "imatrix-Q8_0"])
def test_clients_find_every_rung(model: str, ladder: str) -> None:
    assert problems(model, LADDERS[ladder]) == []


@given(
    st.lists(st.sampled_from(WORDS) | st.from_regex(r"[A-Za-z0-9]{1,4}", fullmatch=True), min_size=1, max_size=5),
    st.lists(st.sampled_from(["-", ".", "_", ""]), min_size=5, max_size=5),
    st.booleans(),
)
def test_clients_find_every_rung_whatever_the_model_is_called(words: list[str], between: list[str], low: bool) -> None:
    model = re.sub(r"[-._]+$", "", "".join(word + joint for word, joint in zip(words, between, strict=False)))
    assert problems(model.lower() if low else model, list(RUNGS)) == []
