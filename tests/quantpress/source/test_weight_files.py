"""Which weights of a source are fetched and counted: those that the loader reads, and no others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from quantpress.errors import Refused
from quantpress.evaluation.target import find_target
from quantpress.hub.hubs import Hubs
from quantpress.source.safetensors import contents
from quantpress.source.source import fetch, local_source, look_up_source
from quantpress.source.weight_files import WeightFiles, find_weight_files, weight_paths
from quantpress.source.weights import check_weights
from tests.support.planned import CONFIG, WEIGHTS, Press, running_press

#: The same weights again, for their maker's library, and files that belong to no plain checkpoint.
BESIDE = {
    "consolidated.safetensors": save({"tok_embeddings.weight": np.zeros((64, 576), np.float16)}),
    "adapter_model.safetensors": save({"lora_A": np.zeros((8, 576), np.float16)}),
    "adapter_config.json": b"{}",
    "pytorch_model.bin": b"\x80\x04.",
    "original/consolidated.safetensors": save({"b": np.zeros((64, 576), np.float16)}),
    "consolidated.safetensors.index.json": json.dumps({"weight_map": {"a": "consolidated.safetensors"}}).encode(),
}
#: The bytes of WEIGHTS' one matrix, and of the file that holds it.
MATRIX, FILE = 64 * 576, len(WEIGHTS)


@pytest.fixture
def press(tmp_path: Path) -> Iterator[Press]:
    with running_press(tmp_path) as press:
        yield press


def sharded(**index: str) -> dict[str, bytes]:
    return {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors.index.json": json.dumps({"weight_map": index}).encode(),
    }


def test_the_plan_counts_each_weight_once(press: Press, tmp_path: Path) -> None:
    press.source("up/Tiny", **BESIDE)
    (plan,) = press.plan({"repo": "up/Tiny", "variants": {"gguf": ["Q8_0"]}})
    (step,) = [step for step in plan.steps if step.variant == "Q8_0"]

    assert step.estimate is not None and plan.source is not None
    assert plan.source.weight_bytes == FILE
    assert step.estimate.upload == pytest.approx(MATRIX * 8.5 / 8, rel=0.01)
    assert step.estimate.memory == pytest.approx(MATRIX * 4, rel=0.01)
    fetch(press.api, plan.source, tmp_path / "source")
    assert sorted(path.name for path in (tmp_path / "source").iterdir() if path.is_file()) == [
        "config.json",
        "model.safetensors",
    ]


def test_an_index_says_which_files_are_read(press: Press) -> None:
    names = ["weights-1", "weights-2", "old"]
    shards = {f"{name}.safetensors": save({name: np.zeros((64, 576), np.float16)}) for name in names}
    press.put("up/Sharded", sharded(a="weights-1.safetensors", b="weights-2.safetensors") | shards | BESIDE)

    source = look_up_source(press.api, "up/Sharded", "main")

    assert sorted(file.path for file in source.files) == [
        "config.json",
        "model.safetensors.index.json",
        "weights-1.safetensors",
        "weights-2.safetensors",
    ]
    assert source.weight_bytes == 2 * len(shards["weights-1.safetensors"])


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (
            sharded(a="model-00001-of-00002.safetensors", b="model-00002-of-00002.safetensors")
            | {"model-00001-of-00002.safetensors": WEIGHTS},
            "blocked: model.safetensors.index.json says that model-00002-of-00002.safetensors holds tensor b, but "
            "model-00002-of-00002.safetensors is missing: ask upstream",
        ),
        (
            sharded() | {"model-00001-of-00002.safetensors": WEIGHTS},
            "blocked: model.safetensors.index.json is no index of safetensors files: ask upstream",
        ),
        (
            {"config.json": json.dumps(CONFIG).encode(), "consolidated.safetensors": WEIGHTS},
            "blocked: it has neither model.safetensors nor model.safetensors.index.json, and transformers reads no "
            "other weights: ask upstream for the index",
        ),
    ],
    ids=["a shard is missing", "no index", "no weights for transformers"],
)
def test_a_source_whose_weights_no_loader_finds_is_blocked(press: Press, files: dict[str, bytes], reason: str) -> None:
    press.put("up/Broken", files)
    assert press.reasons("up/Broken")[0] == reason


def test_a_folder_is_counted_as_the_loader_reads_it(tmp_path: Path) -> None:
    """A folder of the operator's own can hold what was not fetched."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    for name in ("consolidated.safetensors", "adapter_model.safetensors"):
        (folder / name).write_bytes(BESIDE[name])

    assert local_source(folder).weight_bytes == FILE
    assert contents(folder).total_weights == MATRIX
    assert check_weights(folder).weights == MATRIX


def test_a_checkpoint_of_another_loader_keeps_its_own_name(tmp_path: Path) -> None:
    save_file({"a": np.ones(3, np.float32)}, tmp_path / "output.safetensors")
    assert weight_paths(tmp_path) == [tmp_path / "output.safetensors"]


def test_evaluate_fetches_no_weights_twice(press: Press, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    press.source("up/Twice", **BESIDE)

    target = find_target("up/Twice", Hubs(press.api, press.api))

    assert target.model.is_relative_to(tmp_path / "cache")
    assert sorted(path.name for path in target.model.glob("*.safetensors")) == ["model.safetensors"]


NAMES = st.sampled_from(
    ["model.safetensors", "model.safetensors.index.json", "a.safetensors", "own.safetensors.index.json", "b.bin"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | NAMES, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.foreign
@given(names=st.sets(NAMES), named=JSON, index=st.one_of(JSON, st.fixed_dictionaries({"weight_map": JSON})))
def test_any_index_gives_names_of_files_that_are_there_or_a_reason(names: set[str], named: Any, index: Any) -> None:
    try:
        found = find_weight_files(names, {"transformers_weights": named}, lambda name: json.dumps(index).encode())
    except Refused as refusal:
        assert "\n" not in str(refusal)
        return
    assert found is None or (isinstance(found, WeightFiles) and found.files and set(found.files) <= names)
