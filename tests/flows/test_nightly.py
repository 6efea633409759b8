"""One catalog line becomes three repositories, one of them with branches; the second night finds nothing to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from quantpress.files import sha256_of
from quantpress.record.manifest import parse_manifest
from tests.support.history import assert_every_revision_was_whole
from tests.support.operating import Operator

pytestmark = pytest.mark.slow

MODEL = "upstream/Tiny-Instruct"
DEFAULT, OTHER = "gptq-4bit-64g-actorder_False", "gptq-4bit-32g-actorder_True"
VARIANTS = {"gguf": ["Q8_0", "Q4_K_M"], "gptq": ["gptq-4bit-auto", OTHER]}
REPOS = {"gguf": "press/Tiny-Instruct-GGUF", "gptq": "press/Tiny-Instruct-GPTQ", "awq": "press/Tiny-Instruct-AWQ"}


@pytest.fixture(scope="module")
def pressed(operator: Operator, tiny_model: Path) -> Operator:
    """The first night has passed. It used the temporary Prefect server of an operator who runs no server."""
    operator.upload_source(MODEL, tiny_model)
    operator.write_catalog([MODEL], variants=VARIANTS, calibration={"samples": 4, "length": 128})
    code, _, err = replace(operator, prefect=None).call("run")
    assert code == 0, err
    return operator


@pytest.mark.parametrize("format_name", ["gguf", "gptq", "awq"])
def test_a_download_is_what_the_manifest_says(pressed: Operator, format_name: str, tmp_path: Path) -> None:
    hf = Path(sys.executable).with_name("hf")
    subprocess.run(
        [hf, "download", REPOS[format_name], "--local-dir", tmp_path / "got", "--quiet"],
        env=pressed.environment(HF_ENDPOINT=pressed.hub.endpoint, HF_HOME=str(tmp_path / "cache")),
        check=True,
    )
    manifest = parse_manifest((tmp_path / "got" / "quantpress.json").read_bytes(), "got")
    files = [file for entry in manifest.published("main") for file in entry.artifact.files] + manifest.shared
    assert files
    for file in files:
        assert sha256_of(tmp_path / "got" / file.path) == file.sha256
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / "got", check=True)


def test_files_are_named_so_that_clients_find_them(pressed: Operator) -> None:
    assert set(pressed.api.list_repo_files(REPOS["gguf"])) == {
        ".gitattributes",
        "README.md",
        "SHA256SUMS",
        "Tiny-Instruct-Q4_K_M.gguf",
        "Tiny-Instruct-Q8_0.gguf",
        "Tiny-Instruct.imatrix.gguf",
        "divergence.png",
        "params",
        "perplexity.png",
        "quantpress.json",
        "system",
        "template",
    }


def test_every_file_has_its_figures(pressed: Operator) -> None:
    for repo_id in REPOS.values():
        path = pressed.api.hf_hub_download(repo_id, "quantpress.json", cache_dir=pressed.folder / "look")
        manifest = parse_manifest(Path(path).read_bytes(), repo_id)
        assert manifest.entries
        for entry in manifest.entries:
            assert entry.evaluation.divergence is not None
            assert entry.evaluation.scored_tokens == 2 * 255
            assert entry.evaluation.sample
            assert entry.evaluation.token_sha256 == manifest.baselines[0].token_sha256
            assert entry.recipe.fingerprint == entry.fingerprint


def variants_at(operator: Operator, branch: str) -> list[str]:
    path = operator.api.hf_hub_download(
        REPOS["gptq"], "quantpress.json", revision=branch, cache_dir=operator.folder / "look"
    )
    return [entry.variant for entry in parse_manifest(Path(path).read_bytes(), branch).entries]


def test_a_variant_is_published_on_its_branch(pressed: Operator) -> None:
    """GPTQ's default variant is on ``main``. Every other variant is on a branch that holds it alone."""
    repo = REPOS["gptq"]
    assert {branch.name for branch in pressed.api.list_repo_refs(repo).branches} == {"main", OTHER}
    assert variants_at(pressed, "main") == [DEFAULT, OTHER]
    assert variants_at(pressed, OTHER) == [OTHER]
    weights = {
        branch: pressed.api.get_paths_info(repo, "model.safetensors", revision=branch)[0].lfs.sha256
        for branch in ("main", OTHER)
    }
    assert weights["main"] != weights[OTHER]
    assert {step["reason"] for step in pressed.plan()} == {"up to date"}


def test_every_revision_of_each_branch_was_whole(pressed: Operator) -> None:
    repo = REPOS["gptq"]
    assert len(assert_every_revision_was_whole(pressed.hub.root, repo)) == len(pressed.commits(repo)) - 1


def test_each_branch_verifies(pressed: Operator) -> None:
    for branch in ("main", OTHER):
        code, out, err = pressed.call("verify", REPOS["gptq"], "--revision", branch)
        assert code == 0, err
        assert "model.safetensors" in out


def test_the_second_night_does_nothing(pressed: Operator) -> None:
    before = {repo_id: pressed.commits(repo_id) for repo_id in REPOS.values()}
    code, out, err = pressed.call("run")
    assert code == 0, err
    assert out.strip().endswith("Nothing to do.")
    assert {repo_id: pressed.commits(repo_id) for repo_id in REPOS.values()} == before


def test_a_new_line_is_the_only_work(pressed: Operator, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rung leaves too little upload budget for the second, of some 24 MB. That is no failure."""
    monkeypatch.setenv("QUANTPRESS_UPLOAD_BUDGET", "40MB")
    pressed.upload_source("upstream/Second", tiny_model)
    pressed.write_catalog(
        [MODEL, {"repo": "upstream/Second", "formats": ["gguf"], "variants": {"gguf": ["Q8_0", "Q5_0"]}}],
        variants=VARIANTS,
        calibration={"samples": 4, "length": 128},
    )
    before = {repo_id: pressed.commits(repo_id) for repo_id in REPOS.values()}
    to_press = [(step["model"], step["variant"]) for step in pressed.plan() if step["action"] == "press"]
    assert to_press == [("upstream/Second", "Q8_0")]
    deferred = [(step["model"], step["variant"]) for step in pressed.plan() if step["action"] == "defer"]
    assert deferred == [("upstream/Second", "Q5_0")]
    code, out, err = pressed.call("run", "--json")
    assert code == 0, err
    reports = json.loads(out)
    assert [(row["model"], row["variant"]) for report in reports for row in report["variants"]] == to_press
    assert {repo_id: pressed.commits(repo_id) for repo_id in REPOS.values()} == before


def test_verify_finds_a_flipped_byte(pressed: Operator) -> None:
    code, out, _ = pressed.call("verify", REPOS["gguf"])
    assert code == 0
    assert "Tiny-Instruct-Q8_0.gguf" in out
    assert "\nQ8_0  loads and writes: " in out
    assert "\nQ4_K_M  loads and writes: " in out
    path = pressed.api.hf_hub_download(REPOS["gguf"], "quantpress.json", cache_dir=pressed.folder / "look")
    entry = parse_manifest(Path(path).read_bytes(), "x").entry("Q8_0")
    assert entry is not None
    sha256 = entry.artifact.files[0].sha256
    stored = pressed.hub.root / "objects" / sha256[:2] / sha256
    stored.chmod(0o644)
    with stored.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        last = stream.read(1)
        stream.seek(-1, os.SEEK_END)
        stream.write(bytes([last[0] ^ 1]))
    try:
        code, _, err = pressed.call("verify", REPOS["gguf"])
    finally:
        with stored.open("r+b") as stream:
            stream.seek(-1, os.SEEK_END)
            stream.write(last)
    assert code == 1
    assert "of 11 files are not what the manifest says" in err


def test_a_source_commit_is_noticed(pressed: Operator) -> None:
    """Runs last, because it moves the source."""
    old = pressed.api.model_info(MODEL).sha
    new = pressed.api.upload_file(
        repo_id=MODEL, path_in_repo="README.md", path_or_fileobj=b"---\nlicense: mit\n---\nmoved\n"
    ).oid
    steps = [step for step in pressed.plan() if step["model"] == MODEL]
    assert len(steps) >= 4
    assert {step["reason"] for step in steps} == {
        f"source moved: {old[:8]} to {new[:8]}; none of the files that quantpress reads has changed"
    }
    assert {step["action"] for step in steps} == {"card"}
