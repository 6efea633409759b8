"""The index of a model's safetensors files is held to, and a malformed one is refused in one line."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from safetensors.numpy import save_file

from quantpress.errors import Refused
from quantpress.source.weights import check_weights
from tests.support.foreign import objects


def test_the_index_is_held_to(tmp_path: Path) -> None:
    save_file({"a": np.ones(1, np.float32)}, tmp_path / "model-00001-of-00002.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))
    assert check_weights(tmp_path).tensors == 1

    index.write_text(json.dumps({"weight_map": {"b": "model-00002-of-00002.safetensors"}}))
    with pytest.raises(Refused, match=r"says that model-00002-of-00002.safetensors holds tensor b, but .* is missing"):
        check_weights(tmp_path)

    index.write_text(json.dumps({"weight_map": {"b": "model-00001-of-00002.safetensors"}}))
    with pytest.raises(Refused, match=r"says that model-00001-of-00002.safetensors holds tensor b, but it does not"):
        check_weights(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        "{}",
        '{"weight_map": []}',
        '{"weight_map": {"a": ["model.safetensors"]}}',
        '{"weight_map": {"a": null}}',
        '{"metadata": ' + "[" * 5000 + "]" * 5000 + "}",
        '{"weight_map": {"\\ud800": "model.safetensors"}}',
    ],
    ids=["list", "open", "empty", "list inside", "list as file", "null as file", "5,000 levels", "half a character"],
)
def test_an_index_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    save_file({"a": np.ones(1, np.float32)}, tmp_path / "model-00001-of-00001.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(Refused, match=r"^model.safetensors.index.json is no index of safetensors files: ask upstream$"):
        check_weights(tmp_path)


def test_names_in_an_index_are_said_without_control_characters(tmp_path: Path) -> None:
    save_file({"a": np.ones(1, np.float32)}, tmp_path / "model-00001-of-00001.safetensors")
    weight_map = {"a\n\x1b[2J": "model-00001-of-00001.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(
        Refused, match=r"says that model-00001-of-00001.safetensors holds tensor a \[2J, but it does not: ask"
    ):
        check_weights(tmp_path)


@pytest.mark.foreign
@given(content=objects("weight_map", "metadata", parts=("weight_map",)))
def test_any_index_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("index")
    save_file({"a": np.ones(1, np.float32)}, folder / "one.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    with suppress(Refused):
        assert check_weights(folder).tensors == 1
        assert content["weight_map"].items() <= {"a": "one.safetensors"}.items()
