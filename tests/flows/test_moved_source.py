"""A source commit that leaves the weights alone gives rungs (GGUF variants) new metadata, or only changes cards."""

from __future__ import annotations

import hashlib
import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader

from quantpress.record.manifest import Manifest, parse_manifest
from tests.support.operating import Operator

pytestmark = pytest.mark.slow

MODEL = "upstream/Tiny-Instruct"
GGUF, TORCHAO = "press/Tiny-Instruct-GGUF", "press/Tiny-Instruct-TorchAO"
TEMPLATE = "{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}"


@pytest.fixture(scope="module")
def source(operator: Operator, tiny_model: Path) -> Path:
    """The first night has passed. Returns the source's folder as it was uploaded."""
    folder = operator.folder / "source"
    shutil.copytree(tiny_model, folder)
    operator.upload_source(MODEL, folder)
    operator.write_catalog(
        [
            {
                "repo": MODEL,
                "formats": ["gguf", "torchao"],
                "variants": {"gguf": ["Q8_0", "Q4_K_M"], "torchao": ["int8wo"]},
            }
        ],
        calibration={"samples": 2, "length": 128},
    )
    code, _, err = operator.call("run")
    assert code == 0, err
    return folder


def download(operator: Operator, repo_id: str, path: str, revision: str = "main") -> Path:
    return Path(operator.api.hf_hub_download(repo_id, path, revision=revision, cache_dir=operator.folder / "look"))


def manifest_of(operator: Operator, repo_id: str, revision: str = "main") -> Manifest:
    return parse_manifest(download(operator, repo_id, "quantpress.json", revision).read_bytes(), repo_id)


def steps(operator: Operator) -> dict[str, tuple[str, str]]:
    return {step["variant"]: (step["action"], step["reason"]) for step in operator.plan()}


def test_a_changed_readme_is_cards_alone(operator: Operator, source: Path) -> None:
    before = manifest_of(operator, GGUF)
    old, new = (
        before.source.sha,
        operator.api.upload_file(
            repo_id=MODEL, path_in_repo="README.md", path_or_fileobj=b"---\nlicense: mit\n---\nHello\n"
        ).oid,
    )
    reason = f"source moved: {old[:8]} to {new[:8]}; none of the files that quantpress reads has changed"
    assert steps(operator) == dict.fromkeys(("Q8_0", "Q4_K_M", "int8wo"), ("card", reason))

    code, out, err = operator.call("run")
    assert code == 0, err
    assert out.splitlines()[:2] == [f"Committed: cards of {GGUF}", f"Committed: cards of {TORCHAO}"]

    after = manifest_of(operator, GGUF)
    assert [entry.artifact for entry in after.entries] == [entry.artifact for entry in before.entries]
    assert after.source.license == "mit"
    assert "license: mit" in download(operator, GGUF, "README.md").read_text()
    assert after.earlier[0].tag == "v1"
    assert manifest_of(operator, GGUF, "v1") == before
    assert "fetch" not in err and "quantize" not in err
    assert {action for action, _ in steps(operator).values()} == {"keep"}


def test_a_changed_chat_template_is_new_metadata(operator: Operator, source: Path) -> None:
    before = manifest_of(operator, GGUF)
    tokenizer: dict[str, Any] = json.loads((source / "tokenizer_config.json").read_text())
    tokenizer["chat_template"] = TEMPLATE
    operator.api.upload_file(
        repo_id=MODEL, path_in_repo="tokenizer_config.json", path_or_fileobj=json.dumps(tokenizer).encode()
    )
    planned = steps(operator)
    assert {action for action, _ in planned.values()} == {"refresh"}
    assert planned["Q8_0"][1].endswith("; weights did not change, metadata did: tokenizer_config.json")

    code, _, err = operator.call("run")
    assert code == 0, err

    assert "gguf: refresh Q8_0" in err and "torchao: refresh int8wo" in err
    assert "quantize" not in err
    after = manifest_of(operator, GGUF)
    for rung in ("Q8_0", "Q4_K_M"):
        name = f"Tiny-Instruct-{rung}.gguf"
        old, new = (GGUFReader(download(operator, GGUF, name, revision)) for revision in ("v2", "main"))
        assert new.fields["tokenizer.chat_template"].contents() == TEMPLATE
        assert old.fields["tokenizer.chat_template"].contents() != TEMPLATE
        assert [tensor.name for tensor in old.tensors] == [tensor.name for tensor in new.tensors]
        assert all((one.data == two.data).all() for one, two in zip(old.tensors, new.tensors, strict=True))
    assert [earlier.tag for earlier in after.earlier] == ["v1", "v2"]
    assert after.earlier[1].changed == ["tokenizer_config.json"]
    assert after.source.sha != before.source.sha
    assert "tokenizer_config.json" in download(operator, GGUF, "README.md").read_text()
    weights = [manifest_of(operator, TORCHAO, revision).entries[0].artifact for revision in ("v2", "main")]
    first, second = ({file.path: file.sha256 for file in artifact.files} for artifact in weights)
    assert {path for path in second if first[path] != second[path]} == {"tokenizer_config.json"}
    assert {action for action, _ in steps(operator).values()} == {"keep"}


def chunks(data: bytes) -> dict[bytes, int]:
    """Returns a dict from the hash of each chunk to its size.

    A gear hash over 32 bytes of content decides where to cut. Chunks have about 64 KiB each, as Xet's do.
    """
    bytes_ = np.frombuffer(data, np.uint8)
    rolling = np.random.default_rng(0).integers(0, 1 << 32, 256, np.uint32)[bytes_]
    for width in (1, 2, 4, 8, 16):
        # The hash of the last 2n bytes is the hash of the last n plus the hash of the n before them, shifted by n.
        rolling[width:] += rolling[:-width] << np.uint32(width)
    cuts = [0, *(np.flatnonzero(rolling >> np.uint32(16) == 0) + 1).tolist(), len(data)]
    parts = (data[start:end] for start, end in pairwise(cuts))
    return {hashlib.sha256(part).digest(): len(part) for part in parts}


def test_a_hub_that_dedups_receives_little(operator: Operator, source: Path) -> None:
    """A Hub that keeps equal chunks once, as Xet does, needs to be sent little of what the two repos hold."""
    sent = full = 0
    for repo_id in (GGUF, TORCHAO):
        before = operator.api.list_repo_files(repo_id, revision="v2")
        known = {key for path in before for key in chunks(download(operator, repo_id, path, "v2").read_bytes())}
        for path in operator.api.list_repo_files(repo_id):
            found = chunks(download(operator, repo_id, path).read_bytes())
            full += sum(found.values())
            sent += sum(size for key, size in found.items() if key not in known)
    assert full > 100_000_000
    assert sent < 0.05 * full


def test_a_changed_protocol_is_measured_again(operator: Operator, source: Path) -> None:
    before = manifest_of(operator, GGUF)
    code, _, err = operator.call("run", "--formats", "gguf", QUANTPRESS_WINDOWS="3")
    assert code == 0, err
    assert "quantize" not in err and "refresh" not in err
    after = manifest_of(operator, GGUF)
    assert [entry.artifact for entry in after.entries] == [entry.artifact for entry in before.entries]
    assert {entry.evaluation.protocol.windows for entry in before.entries} == {2}
    assert {entry.evaluation.protocol.windows for entry in after.entries} == {3}
    assert {entry.verified is not None for entry in after.entries} == {True}


def test_a_refreshed_rung_is_what_a_press_would_make(operator: Operator, source: Path) -> None:
    """The refreshed rung equals, byte for byte, a rung that another machine quantizes from the new commit."""
    refreshed = manifest_of(operator, GGUF).entry("Q4_K_M")
    assert refreshed is not None
    out = operator.folder / "pressed"
    code, _, err = operator.call(
        "quantize", MODEL, "--variants", "Q4_K_M", "--out", str(out), QUANTPRESS_HOME=str(operator.folder / "elsewhere")
    )
    assert code == 0, err
    pressed = parse_manifest((out / "quantpress.json").read_bytes(), "pressed").entry("Q4_K_M")
    assert pressed is not None
    assert "weights_from" in refreshed.artifact.details and "weights_from" not in pressed.artifact.details
    assert pressed.artifact.files == refreshed.artifact.files


def change_config(operator: Operator, source: Path, **values: Any) -> None:
    config = json.loads((source / "config.json").read_bytes()) | values
    operator.api.upload_file(
        repo_id=MODEL, path_in_repo="config.json", path_or_fileobj=json.dumps(config, indent=2).encode()
    )


def test_factors_of_the_rope_are_quantized_files_again(operator: Operator, source: Path) -> None:
    """The weights did not change, but the file needs one more tensor. New metadata alone does not add that tensor."""
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 2048,
    }
    change_config(operator, source, rope_scaling=scaling)
    assert {action for action, _ in steps(operator).values()} == {"refresh"}

    code, _, err = operator.call("run")
    assert code == 0, err

    said = " ".join(err.split())
    for rung in ("Q8_0", "Q4_K_M"):
        why = "because new metadata is not enough: rope_freqs.weight is new"
        assert f"{rung} of {GGUF} must be quantized again, {why}" in said
        file = GGUFReader(download(operator, GGUF, f"Tiny-Instruct-{rung}.gguf"))
        assert "rope_freqs.weight" in [tensor.name for tensor in file.tensors]
    after = manifest_of(operator, GGUF)
    assert {entry.recipe.source_sha for entry in after.entries} == {after.source.sha}
    assert not any("weights_from" in entry.artifact.details for entry in after.entries)
    assert "weights_from" in manifest_of(operator, TORCHAO).entries[0].artifact.details
    assert {action for action, _ in steps(operator).values()} == {"keep"}


def test_what_a_changed_tokenizer_left_is_made_again_byte_for_byte(operator: Operator, source: Path) -> None:
    """Another tokenizer gives another imatrix. Rungs that only get new metadata keep the earlier imatrix. A rung that
    is pressed in the same run uses the new imatrix."""
    before = manifest_of(operator, GGUF)
    tokenizer: dict[str, Any] = json.loads((source / "tokenizer.json").read_text())
    words = (["\u0120state", "ment"], ["\u0120fun", "ction"], ["\u0120ob", "ject"], ["\u0120val", "ue"])
    kept = [merge for merge in tokenizer["model"]["merges"] if merge not in words]
    assert len(tokenizer["model"]["merges"]) - len(kept) == 4
    tokenizer["model"]["merges"] = kept
    operator.api.upload_file(
        repo_id=MODEL, path_in_repo="tokenizer.json", path_or_fileobj=json.dumps(tokenizer).encode()
    )
    catalog = json.loads(operator.catalog.read_text())
    catalog["models"][0]["variants"]["gguf"].append("Q5_0")
    operator.catalog.write_text(json.dumps(catalog))
    planned = {variant: action for variant, (action, _) in steps(operator).items()}
    assert planned == {"Q8_0": "refresh", "Q4_K_M": "refresh", "Q5_0": "press", "int8wo": "refresh"}

    code, _, err = operator.call("run")
    assert code == 0, err

    after = manifest_of(operator, GGUF)
    details = {entry.variant: entry.artifact.details for entry in after.entries}
    assert {name: found.get("weights_from") for name, found in details.items()} == {
        "Q8_0": before.source.sha,
        "Q4_K_M": before.source.sha,
        "Q5_0": None,
    }
    imatrices = {name: found["imatrix"]["sha256"] for name, found in details.items()}
    (published,) = [file.sha256 for file in after.shared if file.path == "Tiny-Instruct.imatrix.gguf"]
    assert imatrices["Q5_0"] == published != imatrices["Q4_K_M"]
    for repo_id, variant in ((GGUF, "Q4_K_M"), (GGUF, "Q5_0"), (TORCHAO, "int8wo")):
        code, out, err = operator.call("rebuild", repo_id, variant)
        assert code == 0, (out, err)
        assert "  equal  " in out and "different" not in out
