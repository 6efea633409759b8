"""A published rung (a GGUF variant) is made again from its manifest byte for byte, and can be withdrawn for good."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from quantpress.files import sha256_of
from quantpress.record.manifest import Entry, parse_manifest
from tests.support.operating import Operator

pytestmark = pytest.mark.slow

MODEL, REPO = "upstream/Tiny-Instruct", "press/Tiny-Instruct-GGUF"
COMPARISON = "press/Tiny-Instruct-quantized"


def entry_of(operator: Operator, variant: str) -> Entry:
    path = operator.api.hf_hub_download(REPO, "quantpress.json", cache_dir=operator.folder / "look")
    entry = parse_manifest(Path(path).read_bytes(), REPO).entry(variant)
    assert entry is not None
    return entry


@pytest.fixture(scope="module")
def pressed(operator: Operator, tiny_model: Path) -> Operator:
    operator.upload_source(MODEL, tiny_model)
    operator.api.upload_file(repo_id=MODEL, path_in_repo="LICENSE", path_or_fileobj=b"Do what you like.\n")
    line = {"repo": MODEL, "formats": ["gguf"], "variants": {"gguf": ["Q4_K_M"]}}
    operator.write_catalog([line], calibration={"samples": 2, "length": 128})
    code, _, err = operator.call("run")
    assert code == 0, err
    return operator


def test_a_rung_is_made_again_byte_for_byte_on_another_machine(pressed: Operator, tmp_path: Path) -> None:
    """The manifest is all there is: the home folder and the client's cache are new, and the catalog is empty. The
    children start by themselves, so their hash seed differs from that of the children that made the rung."""
    file = entry_of(pressed, "Q4_K_M").artifact.files[0]
    elsewhere = {
        "QUANTPRESS_HOME": str(tmp_path / "home"),
        "HF_HOME": str(tmp_path / "cache"),
        "QUANTPRESS_WARM_CHILDREN": "",
    }
    empty = tmp_path / "empty.yaml"
    empty.write_text("models: []")
    call = ["rebuild", REPO, "Q4_K_M", "--catalog", str(empty), "--out", str(tmp_path / "out")]
    code, out, err = pressed.call(*call, "--json", **elsewhere)
    assert code == 0, err
    assert json.loads(out)["files"] == [
        {"path": "Tiny-Instruct-Q4_K_M.gguf", "published": file.sha256, "rebuilt": file.sha256}
    ]
    assert sha256_of(tmp_path / "out" / "Tiny-Instruct-Q4_K_M.gguf") == file.sha256
    assert list((tmp_path / "home" / "scratch").iterdir()) == []
    code, _, err = pressed.call(*call, **elsewhere)
    assert code == 2
    assert err == f"quantpress: {tmp_path / 'out'} is not empty: give an empty folder, or one that is not there yet\n"


def test_quantize_makes_the_same_file_without_publishing(pressed: Operator, tmp_path: Path) -> None:
    """Beside the file lies all that the repository has too, with the licence."""
    before, entry = pressed.commits(REPO), entry_of(pressed, "Q4_K_M")
    out = tmp_path / "out"
    code, said, err = pressed.call("quantize", MODEL, "--variants", "Q4_K_M", "--out", str(out), "--json")
    assert code == 0, err
    (row,) = json.loads(said)
    assert (row["variant"], row["status"], row["size"]) == ("Q4_K_M", "made", entry.artifact.size)
    assert row["divergence"] == pytest.approx(entry.evaluation.divergence.mean if entry.evaluation.divergence else None)
    assert sorted(path.name for path in out.iterdir()) == [
        "LICENSE",
        "README.md",
        "SHA256SUMS",
        "Tiny-Instruct-Q4_K_M.gguf",
        "Tiny-Instruct.imatrix.gguf",
        "params",
        "quantpress.json",
        "system",
        "template",
    ]
    assert sha256_of(out / "Tiny-Instruct-Q4_K_M.gguf") == entry.artifact.files[0].sha256
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=out, check=True)
    manifest = parse_manifest((out / "quantpress.json").read_bytes(), "out")
    assert [each.fingerprint for each in manifest.entries] == [entry.fingerprint]
    assert pressed.commits(REPO) == before


def test_a_retracted_rung_stays_away(pressed: Operator) -> None:
    code, out, err = pressed.call("retract", REPO, "Q4_K_M", "--reason", "its scales were wrong")
    assert code == 0, err
    assert out.startswith(f"{REPO}@main: Q4_K_M is retracted, commit ")
    names = pressed.api.list_repo_files(REPO)
    assert [name for name in names if name.endswith(".gguf")] == ["Tiny-Instruct.imatrix.gguf"]
    path = pressed.api.hf_hub_download(COMPARISON, "comparison.json", cache_dir=pressed.folder / "look")
    assert json.loads(Path(path).read_text())["variants"] == []
    (step,) = pressed.plan()
    assert (step["action"], step["reason"]) == ("keep", "retracted: its scales were wrong")


def test_the_next_night_leaves_it_so(pressed: Operator) -> None:
    before = pressed.commits(REPO)
    code, out, err = pressed.call("run")
    assert code == 0, err
    assert out.strip().endswith("Nothing to do.")
    assert pressed.commits(REPO) == before
    entry = entry_of(pressed, "Q4_K_M")
    assert (entry.status, entry.retraction) == ("retracted", "its scales were wrong")
