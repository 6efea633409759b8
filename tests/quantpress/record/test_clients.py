"""What clients load for a tag, by their own rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantpress.record.clients import findable, is_model, llama_cpp_takes, ollama_takes

LADDER = ["M-BF16.gguf", "M-F16.gguf", "M-IQ4_XS.gguf", "M-Q4_K_M.gguf", "M-Q8_0.gguf", "M.imatrix.gguf", "README.md"]


@pytest.mark.parametrize(
    ("tag", "path"),
    [
        (None, "M-Q4_K_M.gguf"),
        ("Q8_0", "M-Q8_0.gguf"),
        ("q8_0", "M-Q8_0.gguf"),
        ("IQ4_XS", "M-IQ4_XS.gguf"),
        # llama.cpp finds the tag anywhere in a path, and M-BF16.gguf comes first.
        ("F16", "M-BF16.gguf"),
        ("Q2_K", None),
    ],
)
def test_llama_cpp(tag: str | None, path: str | None) -> None:
    assert llama_cpp_takes(LADDER, tag) == path


@pytest.mark.parametrize(
    ("tag", "path"),
    [
        ("latest", "M-Q4_K_M.gguf"),
        ("F16", "M-F16.gguf"),
        ("bf16", "M-BF16.gguf"),
        ("M-Q8_0", "M-Q8_0.gguf"),
        ("M-Q8_0.gguf", "M-Q8_0.gguf"),
        ("M.imatrix.gguf", None),
        ("", None),
    ],
)
def test_ollama(tag: str, path: str | None) -> None:
    assert ollama_takes(LADDER, tag) == path


def test_without_the_default_rung_the_next_best_is_taken() -> None:
    assert llama_cpp_takes(["M-Q2_K.gguf", "M-Q8_0.gguf"], None) == "M-Q8_0.gguf"
    assert llama_cpp_takes(["M-IQ2_M.gguf", "M-Q2_K.gguf"], None) == "M-IQ2_M.gguf"
    assert ollama_takes(["M-IQ2_M.gguf", "M-Q2_K.gguf"], "latest") == "M-IQ2_M.gguf"
    assert llama_cpp_takes(["README.md"], None) is None


def test_of_a_split_model_the_first_part_is_taken() -> None:
    parts = ["M-Q8_0-00002-of-00002.gguf", "M-Q8_0-00001-of-00002.gguf"]
    assert llama_cpp_takes(parts, "Q8_0") == "M-Q8_0-00001-of-00002.gguf"


def test_a_preset_hides_all_models_from_llama_cpp() -> None:
    assert llama_cpp_takes([*LADDER, "preset.ini"], "Q8_0") is None


@pytest.mark.parametrize("name", ["M.imatrix.gguf", "mmproj-M-F16.gguf", "mtp-M.gguf", "M-Q8_0.gguf.part", "x.bin"])
def test_what_goes_with_a_model_is_none(name: str) -> None:
    assert not is_model(name)


@given(st.lists(st.text(min_size=1)), st.text())
def test_whatever_the_names_are_one_of_them_or_none_is_taken(paths: list[str], tag: str) -> None:
    assert llama_cpp_takes(paths, tag) in (*paths, None)
    assert ollama_takes(paths, tag) in (*paths, None)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct"),
        ("Qwen3-8B-Q8", "Qwen3-8B-Q8"),
        ("tiny-Q4_K_M-merge", "tiny-Q4-K-M-merge"),
        ("tiny-q8_0", "tiny-q8-0"),
        ("M-F16.v2", "M-F-16.v2"),
        ("imatrix-study", "i-matrix-study"),
        ("eagle3-llama", "eagle3_llama"),
        ("7B-mtp", "7B-mtp_"),
    ],
)
def test_a_name_that_clients_misread_is_changed(name: str, stem: str) -> None:
    assert findable(name, ["Q4_K_M", "Q8_0", "F16"]) == stem
