"""The published config.json says what is true of the head: tied to the embeddings, or a tensor of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from quantizers.checkpoint.files import make_plain
from quantizers.protocol import CalibrationText, Job, Variant

TIED: dict[str, Any] = {"model_type": "llama", "tie_word_embeddings": True}
EMBEDDINGS = np.arange(12, dtype=np.float16).reshape(4, 3)


def published(folder: Path, config: dict[str, Any], head: Any, prefix: str = "") -> dict[str, Any]:
    """Returns the config.json of a checkpoint that a library saved as it was in the source."""
    source, out = folder / "source", folder / "out"
    for place in (source, out):
        place.mkdir()
        (place / "config.json").write_text(json.dumps(config))
    tensors = {f"{prefix}model.embed_tokens.weight": EMBEDDINGS}
    save_file(tensors | ({f"{prefix}lm_head.weight": head} if head is not None else {}), out / "model.safetensors")
    job = Job(
        step="quantize",
        variant=Variant(format="gptq", name="any"),
        model_name="any",
        source=source,
        prepared=folder,
        out=out,
        calibration=CalibrationText(name="none", path=folder, sha256="0" * 64, samples=1, length=1),
        threads=1,
        device="cpu",
    )
    make_plain(job, "float16")
    found: dict[str, Any] = json.loads((out / "config.json").read_bytes())
    return found


@pytest.mark.parametrize(
    ("head", "tied"),
    [
        (EMBEDDINGS + np.float16(1), False),
        (EMBEDDINGS[:2], False),
        (EMBEDDINGS.astype(np.float32), False),
        (EMBEDDINGS, True),
        (None, True),
    ],
)
def test_a_head_of_its_own_is_not_tied(tmp_path: Path, head: Any, tied: bool) -> None:
    assert published(tmp_path, TIED, head)["tie_word_embeddings"] is tied


def test_a_model_of_several_parts_says_it_in_each(tmp_path: Path) -> None:
    config = TIED | {"text_config": {"tie_word_embeddings": True, "hidden_size": 3}}
    found = published(tmp_path, config, EMBEDDINGS + np.float16(1), "language_model.")
    assert found["tie_word_embeddings"] is False
    assert found["text_config"] == {"tie_word_embeddings": False, "hidden_size": 3}


def test_what_was_said_rightly_stays(tmp_path: Path) -> None:
    assert published(tmp_path, TIED | {"tie_word_embeddings": False}, EMBEDDINGS)["tie_word_embeddings"] is False
