"""GPTQ's variants as branches: the default on ``main``, every other on a branch that holds it alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantpress.record.manifest import parse_manifest
from tests.support.history import assert_every_revision_was_whole
from tests.support.operating import Operator

pytestmark = pytest.mark.slow

MODEL = "upstream/Tiny-Instruct"
REPO = "press/Tiny-Instruct-GPTQ"
DEFAULT, OTHER = "gptq-4bit-64g-actorder_False", "gptq-4bit-32g-actorder_True"


def variants_at(operator: Operator, branch: str) -> list[str]:
    path = operator.api.hf_hub_download(REPO, "quantpress.json", revision=branch, cache_dir=operator.folder / "look")
    return [entry.variant for entry in parse_manifest(Path(path).read_bytes(), branch).entries]


def test_a_variant_is_published_on_its_branch(operator: Operator, tiny_model: Path) -> None:
    operator.upload_source(MODEL, tiny_model)
    line = {"repo": MODEL, "formats": ["gptq"], "variants": {"gptq": ["gptq-4bit-auto", OTHER]}}
    operator.write_catalog([line], calibration={"samples": 4, "length": 128})
    code, _, err = operator.call("run")
    assert code == 0, err
    assert {branch.name for branch in operator.api.list_repo_refs(REPO).branches} == {"main", OTHER}
    assert variants_at(operator, "main") == [DEFAULT, OTHER]
    assert variants_at(operator, OTHER) == [OTHER]
    weights = {
        branch: operator.api.get_paths_info(REPO, "model.safetensors", revision=branch)[0].lfs.sha256
        for branch in ("main", OTHER)
    }
    assert weights["main"] != weights[OTHER]
    assert {step["reason"] for step in operator.plan()} == {"up to date"}


def test_every_revision_of_each_branch_was_whole(operator: Operator) -> None:
    assert len(assert_every_revision_was_whole(operator.hub.root, REPO)) == len(operator.commits(REPO)) - 1


def test_each_branch_verifies(operator: Operator) -> None:
    for branch in ("main", OTHER):
        code, out, err = operator.call("verify", REPO, "--revision", branch)
        assert code == 0, err
        assert "model.safetensors" in out
