"""If no sound ladder (set of GGUF variants) can be made of a model, the run says why before it starts the ladder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.support.operating import Operator

pytestmark = pytest.mark.slow

LADDER = {"formats": ["gguf"], "variants": {"gguf": ["Q8_0"]}}


def unknown_pre_tokenizer(model: Path) -> None:
    tokenizer = json.loads((model / "tokenizer.json").read_bytes())
    tokenizer["pre_tokenizer"]["pretokenizers"].insert(0, {"type": "Punctuation", "behavior": "Isolated"})
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))


def change_weights(model: Path, name: str, change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> None:
    weights = load_file(model / "model.safetensors")
    save_file(weights | {name: change(weights[name].copy())}, model / "model.safetensors", metadata={"format": "pt"})


def nan_in_a_weight(model: Path) -> None:
    def spoil(weights: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        weights[7, 11] = np.nan
        return weights

    change_weights(model, "model.layers.1.mlp.gate_proj.weight", spoil)


def truncated(model: Path) -> None:
    file = model / "model.safetensors"
    os.truncate(file, file.stat().st_size - 1000)


def without_bos(model: Path) -> None:
    """The tokenizer adds a BOS token and names none.

    The vocabulary gets one more token, because llama.cpp's converter turns BOS off for a vocabulary of 49152.
    """
    change_weights(model, "model.embed_tokens.weight", lambda rows: np.concatenate([rows, rows[:1]]))
    for name, changed in (("tokenizer_config.json", {"add_bos_token": True}), ("config.json", {"vocab_size": 49153})):
        content = json.loads((model / name).read_bytes()) | changed
        content.pop("bos_token", None)
        content.pop("bos_token_id", None)
        (model / name).write_text(json.dumps(content))


SPOILED = {
    truncated: "model.safetensors is truncated or damaged: 70786824 bytes are needed by tensor model.norm.weight "
    "and the file has 70785824; delete it and fetch it again, or ask upstream",
    nan_in_a_weight: "tensor model.layers.1.mlp.gate_proj.weight in model.safetensors has a NaN or an infinite value: "
    "ask upstream, or pin a sound revision",
    unknown_pre_tokenizer: "gguf: the converter of llama.cpp ",
    without_bos: "gguf: its tokenizer adds a BOS and no BOS token is named, so llama.cpp would put another token "
    "there: ask upstream to name bos_token in tokenizer_config.json",
}


def test_each_is_named_and_nothing_is_published(operator: Operator, tiny_model: Path, tmp_path: Path) -> None:
    names = {spoil: spoil.__name__.replace("_", "-") for spoil in SPOILED}
    for spoil, name in names.items():
        model = Path(shutil.copytree(tiny_model, tmp_path / name))
        spoil(model)
        operator.upload_source(f"upstream/{name}", model)
    operator.write_catalog(
        [{"repo": f"upstream/{name}", **LADDER} for name in names.values()], calibration={"samples": 2, "length": 128}
    )

    code, _, err = operator.call("run")

    assert code == 1
    lines = sorted(line for line in err.splitlines() if line.startswith("quantpress: "))
    assert len(lines) == len(SPOILED)
    for spoil, name in names.items():
        (line,) = [line for line in lines if line.startswith(f"quantpress: upstream/{name}")]
        assert SPOILED[spoil] in line
        assert not operator.api.repo_exists(f"press/{name}-GGUF")
    assert "\n  | " not in err  # no log is quoted
    assert not list((operator.folder / "home" / "work").glob("*/gguf/*/*-F16.gguf"))


def test_a_killed_preparation_goes_on_where_it_was(operator: Operator, tiny_model: Path) -> None:
    operator.upload_source("upstream/Killed", tiny_model)
    operator.write_catalog([{"repo": "upstream/Killed", **LADDER}], calibration={"samples": 35, "length": 128})
    prepared = "work/upstream--Killed-*/gguf/prepared-*"

    first = operator.start_silent("run")
    while first.poll() is None and not list((operator.folder / "home").glob(f"{prepared}/*.partial.gguf")):
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    (model,) = (operator.folder / "home").glob(f"{prepared}/*-F16.gguf")
    made = model.stat().st_ino, model.stat().st_mtime_ns

    second = operator.start_silent("run")
    continued = False
    while second.poll() is None and not continued:
        time.sleep(0.05)
        logs = list((operator.folder / "home").glob(f"{prepared}.job/log.txt")) if model.exists() else []
        continued = any(b"removing initial 32 chunks" in log.read_bytes() for log in logs)
    assert continued
    assert (model.stat().st_ino, model.stat().st_mtime_ns) == made
    assert second.wait(timeout=600) == 0
    assert "Killed.imatrix.gguf" in operator.api.list_repo_files("press/Killed-GGUF")
