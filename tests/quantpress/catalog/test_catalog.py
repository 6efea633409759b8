"""The catalog as an operator meets it: what it accepts, and the message for each mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantpress.catalog.reader import load_catalog, parse_catalog, schema
from quantpress.catalog.schema import Defaults, ModelLine
from quantpress.errors import BadInput, Refused
from tests.support.foreign import objects


def mistake(text: str) -> str:
    with pytest.raises(BadInput) as caught:
        parse_catalog(text, "catalog.yaml")
    return str(caught.value)


def test_one_line_is_enough() -> None:
    catalog = parse_catalog("models:\n  - HuggingFaceTB/SmolLM2-135M-Instruct\n", "c")
    (line,) = catalog.models
    assert line.repo == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert line.revision == "main"
    assert catalog.formats_of(line) == ["gguf", "gptq", "awq"]


def test_a_mapping_overrides() -> None:
    text = """
models:
  - repo: a/Model
    revision: v1
    formats: [awq, gguf]
    variants: { gguf: [Q8_0, Q4_K_M] }
    calibration: { samples: 7, length: 128 }
    priority: 3
"""
    catalog = parse_catalog(text, "c")
    (line,) = catalog.models
    assert catalog.formats_of(line) == ["gguf", "awq"]
    assert catalog.variants_of(line, "gguf", {}) == ["Q8_0", "Q4_K_M"]
    assert (catalog.calibration_of(line).samples, catalog.calibration_of(line).length) == (7, 128)


def test_a_named_ladder_is_expanded_once() -> None:
    catalog = parse_catalog("models:\n  - {repo: a/M, variants: {gguf: [Q4_0, thebloke]}}\n", "c")
    names = catalog.variants_of(catalog.models[0], "gguf", {})
    assert names[0] == "Q4_0"
    assert names.count("Q4_0") == 1
    assert len(names) == 12


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "models:\n  - repo: a/M\n    formts: [gguf]\n",
            "catalog.yaml:3: unknown key 'formts'; did you mean 'formats'?",
        ),
        ("modles:\n  - a/M\n", "catalog.yaml:1: unknown key 'modles'; did you mean 'models'?"),
        (
            "models:\n  - a/M\n  - repo: b/N\n    formats: [ggfu]\n",
            "catalog.yaml:4: models[1].formats[0]: unknown format 'ggfu': did you mean 'gguf'?",
        ),
        (
            "models:\n  - repo: a/M\n    backends:\n      awq: autoawk\n",
            "catalog.yaml:4: unknown backend 'autoawk' of format 'awq': did you mean 'autoawq'?",
        ),
        (
            "models:\n  - just-a-name\n",
            "catalog.yaml:2: models[0].repo: 'just-a-name' is not a repo id: write namespace/name, "
            "as in the model's address on the Hub",
        ),
        ("models:\n  - a/M\n  - b/N\n  - A/m\n", "catalog.yaml:4: 'A/m' is listed twice: keep one line"),
        (
            "models:\n  - a/M\n  - b/M\n",
            "catalog.yaml:3: 'b/M' and 'a/M' would both be published as M-…: keep one of them",
        ),
        ("models: []\nmodels: []\n", "catalog.yaml:2: key 'models' is given twice: keep one"),
        (
            "settings:\n  namspace: me\nmodels: []\n",
            "catalog.yaml:2: unknown key 'namspace'; did you mean 'namespace'?",
        ),
        (
            "models:\n  - repo: a/M\n    calibration:\n      sample: 3\n",
            "catalog.yaml:4: unknown key 'sample'; did you mean 'samples'?",
        ),
        ("- a/M\n", "catalog.yaml:1: expected a mapping with the key 'models', a list of model repositories"),
    ],
)
def test_each_mistake_has_its_line_and_remedy(text: str, expected: str) -> None:
    assert expected in mistake(text).splitlines()


def test_broken_yaml_names_the_line() -> None:
    assert mistake("models:\n  - a/M\n  b: [\n").startswith("catalog.yaml:3: not valid YAML: ")


def test_an_unknown_rung_names_the_nearest() -> None:
    said = mistake("models:\n  - repo: a/M\n    variants:\n      gguf:\n        - Q8_0\n        - Q4_KM\n")
    assert said == "catalog.yaml:6: unknown GGUF variant 'Q4_KM': did you mean 'Q4_K_M'?"


def test_all_mistakes_are_told_at_once() -> None:
    said = mistake("models:\n  - nothing\n  - repo: a/M\n    skp: x\n")
    assert len(said.splitlines()) == 2


def test_a_missing_file_says_which_option() -> None:
    with pytest.raises(BadInput, match=r"nowhere\.yaml: cannot be read \(No such file or directory\); .*--catalog"):
        load_catalog(Path("nowhere.yaml"))


@pytest.mark.foreign
@given(st.text(max_size=200))
def test_any_text_is_a_catalog_or_one_clear_error(text: str) -> None:
    try:
        parse_catalog(text, "c")
    except BadInput as error:
        assert all(line.startswith("c:") for line in str(error).splitlines())


LINES = objects(*ModelLine.model_fields, *Defaults.model_fields, parts=("calibration", "gates", "variants", "backends"))


@pytest.mark.foreign
@given(
    st.one_of(
        objects("models", "defaults", "settings"),
        LINES.map(lambda line: {"models": [{"repo": "up/M"} | line]}),
        LINES.map(lambda line: {"models": ["up/M"], "defaults": line}),
    )
)
def test_any_object_is_a_catalog_or_one_clear_error(catalog: dict[str, Any]) -> None:
    try:
        parse_catalog(json.dumps(catalog), "c")
    except BadInput as error:
        assert all(said.startswith("c:") for said in str(error).splitlines())


@pytest.mark.foreign
@given(st.text(alphabet="ab./\\-~:$ \n", min_size=1, max_size=12))
def test_no_repo_id_leaves_its_folder(repo: str) -> None:
    try:
        catalog = parse_catalog(json.dumps({"models": [{"repo": repo}]}), "c")
    except BadInput:
        return
    namespace, _, name = catalog.models[0].repo.partition("/")
    assert "/" not in name and ".." not in repo and namespace not in ("", ".") and name not in ("", ".")


def test_the_schema_file_is_current() -> None:
    """Editors read catalog.schema.json; `make schema` writes it."""
    path = Path(__file__).parents[3] / "catalog.schema.json"
    assert json.loads(path.read_text()) == json.loads(json.dumps(schema()))


def test_the_project_catalogs_are_valid() -> None:
    root = Path(__file__).parents[3]
    assert load_catalog(root / "catalog.yaml").models[0].repo == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert load_catalog(root / "catalog.demo.yaml").models[0].repo == "HuggingFaceTB/SmolLM2-135M-Instruct"
    benchmarks = root / "benchmarks"
    assert load_catalog(benchmarks / "formats.catalog.yaml").models[0].repo == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert load_catalog(benchmarks / "gpu.catalog.yaml").models[0].repo == "quantpress/SmolLM2-135M-wide"


def test_what_a_ladder_names_and_a_model_cannot_have_is_left_out_with_the_reason() -> None:
    line = {"repo": "a/b", "variants": {"gptq": ["thebloke"]}}
    catalog = parse_catalog(json.dumps({"models": [line]}), "c")
    narrow = {"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9}
    left_out = catalog.left_out(catalog.models[0], "gptq", narrow)
    assert list(left_out) == [
        "gptq-4bit-128g-actorder_True",
        "gptq-8bit-128g-actorder_True",
        "gptq-3bit-128g-actorder_True",
    ]
    assert set(left_out.values()) == {
        "group size 128 does not divide hidden_size 576, inputs of attention, gate and up projections: "
        "use 64 or 32 or -1 (a whole row)"
    }
    assert not set(left_out) & set(catalog.variants_of(catalog.models[0], "gptq", narrow))


def test_a_ladder_of_which_a_model_can_have_nothing_is_refused() -> None:
    catalog = parse_catalog(json.dumps({"models": [{"repo": "a/b", "variants": {"gptq": ["thebloke"]}}]}), "c")
    with pytest.raises(Refused, match="strange"):
        catalog.variants_of(catalog.models[0], "gptq", {"model_type": "strange"})
