"""If a rung (a GGUF variant) fails the quality gate, its figures and the reason are published, but not its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quantpress.record.manifest import parse_manifest
from tests.support.operating import Operator

pytestmark = pytest.mark.slow

MODEL = "upstream/Tiny-Instruct"
REPO = "press/Tiny-Instruct-GGUF"


def write_catalog(operator: Operator, limit: float) -> None:
    line: dict[str, Any] = {"repo": MODEL, "formats": ["gguf"], "variants": {"gguf": ["Q4_0", "Q8_0"]}}
    line["gates"] = {"Q4_0": {"max_divergence": limit, "reason": "stricter than two layers can be"}}
    operator.write_catalog([line], calibration={"samples": 2, "length": 128})


@pytest.fixture(scope="module")
def pressed(operator: Operator, tiny_model: Path) -> Operator:
    operator.upload_source(MODEL, tiny_model)
    write_catalog(operator, 0.00001)
    code, out, err = operator.call("run", "--json")
    assert code == 0, err
    (report,) = json.loads(out)
    assert {row["variant"]: row["status"] for row in report["variants"]} == {"Q4_0": "withheld", "Q8_0": "published"}
    return operator


def test_its_file_is_not_uploaded_and_its_reason_is(pressed: Operator) -> None:
    files = pressed.api.list_repo_files(REPO)
    assert [name for name in files if name.endswith((".gguf", ".bin")) and "imatrix" not in name] == [
        "Tiny-Instruct-Q8_0.gguf"
    ]

    def download(name: str) -> Path:
        return Path(pressed.api.hf_hub_download(REPO, name, cache_dir=pressed.folder / "look"))

    entry = parse_manifest(download("quantpress.json").read_bytes(), REPO).entry("Q4_0")
    assert entry is not None
    assert entry.status == "withheld"
    assert entry.verdict.reasons[0].startswith("mean KLD 0.0")
    assert entry.verdict.reasons[0].endswith("is above the limit of 1e-05")
    assert entry.verdict.notes == [
        "the limit of its mean KLD is 1e-05 for this model, not 0.12: stricter than two layers can be"
    ]
    assert "Q4_0" not in download("SHA256SUMS").read_text()
    card = download("README.md").read_text()
    assert "## Withheld" in card
    assert "is above the limit of 1e-05" in card.split("## Withheld")[1]


def test_it_is_not_made_again_until_its_limit_lets_it_through(pressed: Operator) -> None:
    def reasons() -> dict[str, str]:
        return {step["variant"]: step["reason"] for step in pressed.plan()}

    assert reasons()["Q8_0"] == "up to date"
    assert reasons()["Q4_0"].startswith("withheld: mean KLD 0.0")
    write_catalog(pressed, 0.5)
    assert reasons() == {
        "Q4_0": "gate changed: the limit on the variant's mean KLD is now 0.5",
        "Q8_0": "up to date",
    }
