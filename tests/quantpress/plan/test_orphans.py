"""What is published but no longer in the catalog is listed with the reason, and left alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from quantpress.catalog.reader import parse_catalog
from quantpress.comparison.publish import publish_comparison
from quantpress.localhub.server import running_hub
from quantpress.plan.orphans import find_orphans
from quantpress.record.manifest import Manifest
from quantpress.settings import Settings
from tests.support import samples

CARD = b"---\ntags:\n- quantpress\n---\n"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[HfApi]:
    with running_hub(tmp_path / "hub") as hub:
        yield HfApi(endpoint=hub.endpoint, token=hub.create_token("press", "write"))


def put(api: HfApi, repo_id: str, manifest: Manifest | bytes | None, card: bytes = CARD) -> None:
    api.create_repo(repo_id)
    operations = [CommitOperationAdd("README.md", card)]
    if manifest is not None:
        text = manifest.to_json().encode() if isinstance(manifest, Manifest) else manifest
        operations.append(CommitOperationAdd("quantpress.json", text))
    api.create_commit(repo_id, operations, commit_message="press")


def orphans(api: HfApi, *models: Any) -> list[tuple[str, str]]:
    catalog = parse_catalog(json.dumps({"models": list(models)}), "c")
    steps = find_orphans(catalog, Settings(namespace="press"), api)
    assert {step.action for step in steps} <= {"orphaned"}
    return [(step.repo_id, step.reason) for step in steps]


def test_what_left_the_catalog_is_orphaned(api: HfApi) -> None:
    name, model = "SmolLM2-135M-Instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"
    put(api, f"press/{name}-GGUF", samples.gguf())
    put(api, f"press/{name}-GPTQ", samples.gptq())
    gguf, gptq = f"press/{name}-GGUF", f"press/{name}-GPTQ"
    assert orphans(api, {"repo": model, "formats": ["gguf", "gptq"]}) == []
    assert orphans(api, {"repo": model, "skip": "see its issue 7"}) == []
    assert orphans(api, {"repo": model, "formats": ["gguf"]}) == [
        (gptq, f"orphaned: gptq is no format of {model} in the catalog any more; {gptq} stays as it is")
    ]
    assert orphans(api, "other/Model") == [
        (gguf, f"orphaned: {model} is not in the catalog any more; {gguf} stays as it is"),
        (gptq, f"orphaned: {model} is not in the catalog any more; {gptq} stays as it is"),
    ]


def test_only_what_quantpress_made_is_listed(api: HfApi) -> None:
    put(api, "press/By-Hand", None)
    put(api, "press/Untagged", samples.gguf(), card=b"# Mine\n")
    put(api, "other/Tiny-GGUF", samples.gguf())
    put(api, "press/Damaged-GGUF", b"{}")
    ((repo_id, reason),) = orphans(api, "other/Model")
    assert repo_id == "press/Damaged-GGUF"
    assert reason.startswith("orphaned: press/Damaged-GGUF: quantpress.json is not a manifest of this version")


def test_the_comparison_of_a_model_that_left_is_orphaned(api: HfApi) -> None:
    name, model = "SmolLM2-135M-Instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"
    gguf, comparison = f"press/{name}-GGUF", f"press/{name}-quantized"
    put(api, gguf, samples.gguf())
    publish_comparison(api, "press", samples.source(), False)
    assert orphans(api, {"repo": model, "formats": ["gguf"]}) == []
    assert orphans(api, {"repo": model, "formats": ["gptq"]}) == [
        (gguf, f"orphaned: gguf is no format of {model} in the catalog any more; {gguf} stays as it is")
    ]
    assert orphans(api, "other/Model") == [
        (gguf, f"orphaned: {model} is not in the catalog any more; {gguf} stays as it is"),
        (comparison, f"orphaned: {model} is not in the catalog any more; {comparison} stays as it is"),
    ]
    api.upload_file(repo_id=comparison, path_in_repo="made_from.json", path_or_fileobj=b"{}")
    assert orphans(api, "other/Model")[1] == (
        comparison,
        f"orphaned: {comparison}: made_from.json of the comparison is not of this version",
    )
