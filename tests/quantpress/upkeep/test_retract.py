"""A retracted variant's files leave the branch. Its record stays with the reason, and no plan brings it back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.hf_api import RepoFile

from quantizers.protocol import Variant
from quantpress.errors import BadInput
from quantpress.hub.hubs import Hubs
from quantpress.localhub.server import running_hub
from quantpress.plan.steps import FormatPlan, Step, VariantPlan
from quantpress.press.compose import CommitContent, compose_manifest
from quantpress.record.manifest import Entry, File, Manifest, parse_manifest
from quantpress.record.shelf import Shelf
from quantpress.settings import Settings
from quantpress.upkeep.retract import retract, withdrawn
from tests.support import samples

GGUF, GPTQ = "press/SmolLM2-135M-Instruct-GGUF", "press/SmolLM2-135M-Instruct-GPTQ"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[HfApi]:
    with running_hub(tmp_path / "hub") as hub:
        yield HfApi(endpoint=hub.endpoint, token=hub.create_token("press", "write"))


def content(file: File) -> bytes:
    return f"the bytes of {file.path}".encode()


def as_stored(entry: Entry) -> Entry:
    files = [
        File(path=file.path, size=len(content(file)), sha256=hashlib.sha256(content(file)).hexdigest())
        for file in entry.artifact.files
    ]
    return entry.model_copy(update={"artifact": entry.artifact.model_copy(update={"files": files})})


def put(api: HfApi, repo_id: str, manifest: Manifest, branch: str = "main") -> None:
    """Makes a branch that holds what the manifest lists for it, and ``params``, which the manifest does not list."""
    entries = [as_stored(entry) for entry in manifest.entries]
    stored = manifest.model_copy(update={"entries": entries})
    if branch != "main":
        api.create_branch(repo_id, branch=branch, exist_ok=True)
        stored = stored.model_copy(update={"entries": [entry for entry in entries if entry.branch == branch]})
    files = [file for entry in stored.published(branch) for file in entry.artifact.files]
    files += manifest.shared if branch == "main" else []
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(file.path, content(file)) for file in files
    ]
    operations += [CommitOperationAdd("quantpress.json", stored.to_json().encode())]
    operations += [CommitOperationAdd("params", b"{}")]
    api.create_repo(repo_id, exist_ok=True)
    api.create_commit(repo_id, operations, commit_message="press", revision=branch)


def manifest_at(api: HfApi, repo_id: str, branch: str, folder: Path) -> Manifest:
    path = api.hf_hub_download(repo_id, "quantpress.json", revision=branch, cache_dir=folder)
    return parse_manifest(Path(path).read_bytes(), branch)


def blob_of(api: HfApi, path: str) -> str:
    (found,) = api.get_paths_info(GGUF, path)
    assert isinstance(found, RepoFile)
    return found.blob_id


def call(api: HfApi, repo_id: str, variant: str, reason: str) -> dict[str, str]:
    return retract(Hubs(api, api), repo_id, variant, reason, Settings(target_endpoint=api.endpoint)).commits


def test_a_rung_leaves_with_its_plot_point_and_stays_on_record(api: HfApi, tmp_path: Path) -> None:
    put(api, GGUF, samples.gguf({"Q4_K_M": 6.17, "Q6_K": 8.15, "Q8_0": 8.51}))
    before = blob_of(api, "perplexity.png")
    commits = call(api, GGUF, "Q6_K", "wrong\nrope *scaling*")
    assert list(commits) == ["main"]
    assert len(api.list_repo_commits(GGUF)) == 3
    assert set(api.list_repo_files(GGUF)) == {
        ".gitattributes",
        "README.md",
        "SHA256SUMS",
        "SmolLM2-135M-Instruct-Q4_K_M.gguf",
        "SmolLM2-135M-Instruct-Q8_0.gguf",
        "SmolLM2-135M-Instruct.imatrix.gguf",
        "divergence.png",
        "params",
        "perplexity.png",
        "quantpress.json",
    }
    manifest = manifest_at(api, GGUF, "main", tmp_path)
    entry = manifest.entry("Q6_K")
    assert entry is not None
    assert (entry.status, entry.retraction) == ("retracted", "wrong rope *scaling*")
    assert [each.variant for each in manifest.published()] == ["Q4_K_M", "Q8_0"]
    assert blob_of(api, "perplexity.png") != before
    card = Path(api.hf_hub_download(GGUF, "README.md", cache_dir=tmp_path)).read_text()
    assert "## Retracted" in card
    assert "wrong rope \\*scaling\\* |" in card
    sums = Path(api.hf_hub_download(GGUF, "SHA256SUMS", cache_dir=tmp_path)).read_text()
    listed = {line.split("  ")[1]: line.split("  ")[0] for line in sums.splitlines()}
    assert sorted(listed) == sorted(set(api.list_repo_files(GGUF)) - {".gitattributes", "SHA256SUMS", "params"})
    for name in ("README.md", "perplexity.png", "quantpress.json", "SmolLM2-135M-Instruct-Q8_0.gguf"):
        file = api.hf_hub_download(GGUF, name, cache_dir=tmp_path)
        assert hashlib.sha256(Path(file).read_bytes()).hexdigest() == listed[name]


def test_the_last_but_one_takes_the_plots_with_it(api: HfApi) -> None:
    put(api, GGUF, samples.gguf({"Q4_K_M": 6.17, "Q8_0": 8.51}))
    call(api, GGUF, "Q8_0", "broken")
    assert not {"perplexity.png", "divergence.png"} & set(api.list_repo_files(GGUF))


def test_a_branch_is_emptied_and_main_follows(api: HfApi, tmp_path: Path) -> None:
    manifest, other = samples.gptq(), "gptq-4bit-32g-actorder_True"
    put(api, GPTQ, manifest)
    put(api, GPTQ, manifest, other)
    assert list(call(api, GPTQ, other, "broken")) == [other, "main"]
    assert "model.safetensors" in api.list_repo_files(GPTQ)
    assert set(api.list_repo_files(GPTQ, revision=other)) == {
        ".gitattributes", "README.md", "SHA256SUMS", "params", "quantpress.json",
    }  # fmt: skip
    for branch in (other, "main"):
        entry = manifest_at(api, GPTQ, branch, tmp_path).entry(other)
        assert entry is not None and entry.retraction == "broken"


def test_a_call_that_was_cut_off_is_finished_by_the_next(api: HfApi, tmp_path: Path) -> None:
    manifest, other = samples.gptq(), "gptq-4bit-32g-actorder_True"
    put(api, GPTQ, manifest)
    put(api, GPTQ, manifest, other)
    call(api, GPTQ, other, "broken")
    put(api, GPTQ, manifest)
    assert list(call(api, GPTQ, other, "broken")) == ["main"]
    entry = manifest_at(api, GPTQ, "main", tmp_path).entry(other)
    assert entry is not None and entry.status == "retracted"


def test_what_cannot_be_retracted_is_named(api: HfApi) -> None:
    withheld = samples.entry("gguf", "Q2_K", bits=5.1, divergence=0.9, withheld="too far")
    entries = [*samples.gguf({"Q4_K_M": 6.17, "Q8_0": 8.51}).entries, withheld]
    put(api, GGUF, samples.gguf(entries=entries))
    api.create_repo("press/Empty")
    for repo_id, variant, reason, said in [
        ("nonsense", "Q8_0", "x", "'nonsense' is not a repo id: write namespace/name"),
        ("press/None", "Q8_0", "x", f"{api.endpoint} has no repository press/None"),
        ("press/Empty", "Q8_0", "x", "press/Empty has no quantpress.json: only what quantpress has published"),
        (GGUF, "Q8_9", "x", f"{GGUF} has no variant 'Q8_9': did you mean 'Q8_0'?"),
        (GGUF, "Q2_K", "x", f"Q2_K of {GGUF} is withheld: nothing of it is published"),
        (GGUF, "Q8_0", " ", "a retraction needs a reason"),
    ]:
        with pytest.raises(BadInput) as refused:
            call(api, repo_id, variant, reason)
        assert str(refused.value).startswith(said)
    call(api, GGUF, "Q8_0", "broken")
    with pytest.raises(BadInput, match=f"Q8_0 of {GGUF} is retracted already: broken"):
        call(api, GGUF, "Q8_0", "again")


def test_the_record_outlives_a_source_that_moved_without_its_weights() -> None:
    """The next commit is composed for the new source. If the commit lost the record, the variant would be new work."""
    main = withdrawn(samples.gguf({"Q4_K_M": 6.17, "Q8_0": 8.51}), "Q8_0", "broken")
    moved = samples.source(sha="f" * 40)

    def planned(entry: Entry, action: Literal["refresh", "keep"]) -> VariantPlan:
        recipe = entry.recipe.model_copy(update={"source_sha": moved.sha})
        step = Step(model=moved.repo, format="gguf", variant=entry.variant, repo_id=GGUF, action=action, reason="")
        return VariantPlan(Variant(format="gguf", name=entry.variant), recipe, step)

    variants = (planned(main.entries[0], "refresh"), planned(main.entries[1], "keep"))
    plan = FormatPlan("gguf", Shelf(GGUF, {"main": "0" * 40}, {"main": main}), variants, ())
    content = CommitContent([], [], {}, [], main.baselines, {})
    after = compose_manifest(plan, main.model_name, moved, content, [])
    assert [(entry.variant, entry.status) for entry in after.entries] == [
        ("Q4_K_M", "published"),
        ("Q8_0", "retracted"),
    ]
