"""Client contract: commits, files, branches and downloads of models."""

from __future__ import annotations

import hashlib
from pathlib import Path

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from tests.quantpress.localhub.contract_client import (
    CARD,
    ENDPOINT,
    SMALL_WEIGHTS,
    WEIGHTS,
    WORK,
    fresh_cache,
    hf_download,
    nobody,
    press,
    refusal,
    refused_with,
    run_checks,
    sha256,
)

REPO = "press/Tiny-GGUF"


def check_upload() -> None:
    press.create_repo(REPO)
    info = press.create_commit(
        REPO,
        [
            CommitOperationAdd("README.md", CARD),
            CommitOperationAdd("Tiny-Q8_0.gguf", WEIGHTS),
            CommitOperationAdd("small/Tiny-Q2_K.gguf", SMALL_WEIGHTS),
            CommitOperationAdd("empty.bin", b""),
        ],
        commit_message="Add files",
        commit_description="All of them",
    )
    assert info.commit_url == f"{ENDPOINT}/{REPO}/commit/{info.oid}"
    model = nobody.model_info(REPO, files_metadata=True)
    assert model.sha == info.oid
    assert model.private is False and model.gated is False and model.author == "press"
    assert model.card_data is not None and model.tags is not None and model.siblings is not None
    assert model.card_data.license == "apache-2.0" and model.card_data.base_model == "maker/Tiny"
    assert {"license:apache-2.0", "base_model:quantized:maker/Tiny", "press", "gguf", "en"} <= set(model.tags)
    files = {file.rfilename: file for file in model.siblings}
    assert list(files) == [".gitattributes", "README.md", "Tiny-Q8_0.gguf", "empty.bin", "small/Tiny-Q2_K.gguf"]
    weights = files["Tiny-Q8_0.gguf"].lfs
    assert weights is not None and weights.sha256 == sha256(WEIGHTS)
    assert files["Tiny-Q8_0.gguf"].size == 21_000_001
    assert files["README.md"].lfs is None and files["empty.bin"].lfs is None
    body = f"blob {len(CARD)}\0".encode() + CARD
    assert files["README.md"].blob_id == hashlib.sha1(body).hexdigest()


def check_same_upload_makes_no_commit() -> None:
    before = press.model_info(REPO).sha
    again = press.create_commit(
        REPO,
        [CommitOperationAdd("README.md", CARD), CommitOperationAdd("Tiny-Q8_0.gguf", WEIGHTS)],
        commit_message="Again",
    )
    assert again.oid == before
    assert [commit.title for commit in press.list_repo_commits(REPO)] == ["Add files", "initial commit"]


def check_trees() -> None:
    flat = {item.path: item for item in nobody.list_repo_tree(REPO)}
    assert list(flat) == [".gitattributes", "README.md", "Tiny-Q8_0.gguf", "empty.bin", "small"]
    assert [item.path for item in nobody.list_repo_tree(REPO, "small")] == ["small/Tiny-Q2_K.gguf"]
    deep = {item.path: item for item in nobody.list_repo_tree(REPO, recursive=True, expand=True)}
    weights = deep["small/Tiny-Q2_K.gguf"]
    assert isinstance(weights, RepoFile) and weights.lfs is not None
    assert weights.lfs.sha256 == sha256(SMALL_WEIGHTS)
    titles = {path: item.last_commit.title for path, item in deep.items() if item.last_commit is not None}
    assert titles[".gitattributes"] == "initial commit"
    assert titles["small"] == "Add files"
    assert refused_with(lambda: list(nobody.list_repo_tree(REPO, "absent"))) == 404


def check_paths_info() -> None:
    found = nobody.get_paths_info(REPO, ["README.md", "small", "absent"], expand=True)
    assert [item.path for item in found] == ["README.md", "small"]
    assert isinstance(found[0], RepoFile) and found[0].size == len(CARD)
    assert nobody.file_exists(REPO, "README.md") and not nobody.file_exists(REPO, "absent")


def check_branches_and_tags() -> None:
    head = press.model_info(REPO).sha
    press.create_branch(REPO, branch="gptq-4bit-32g-actorder_True")
    press.create_branch(REPO, branch="gptq-4bit-32g-actorder_True", exist_ok=True)
    press.create_branch(REPO, branch="try/one")
    press.create_tag(REPO, tag="v1", tag_message="The first")
    assert refused_with(lambda: press.create_tag(REPO, tag="v1")) == 409
    press.upload_file(repo_id=REPO, path_in_repo="branch.txt", path_or_fileobj=b"here", revision="try/one")
    refs = nobody.list_repo_refs(REPO)
    assert [b.name for b in refs.branches] == ["main", "gptq-4bit-32g-actorder_True", "try/one"]
    assert [(t.name, t.ref, t.target_commit) for t in refs.tags] == [("v1", "refs/tags/v1", head)]
    assert nobody.model_info(REPO, revision="refs/heads/try/one").sha == refs.branches[2].target_commit
    assert nobody.model_info(REPO, revision="v1").sha == head
    assert nobody.model_info(REPO).sha == head
    assert nobody.file_exists(REPO, "branch.txt", revision="try/one")
    assert not nobody.file_exists(REPO, "branch.txt")
    press.create_branch(REPO, branch="passing", revision=head)
    press.delete_branch(REPO, branch="passing")
    press.create_tag(REPO, tag="passing")
    press.delete_tag(REPO, tag="passing")
    assert not nobody.revision_exists(REPO, "passing")


def check_stale_parent() -> None:
    old = press.model_info(REPO).sha
    notes = [CommitOperationAdd("notes.txt", b"one")]
    new = press.create_commit(REPO, notes, commit_message="Notes", parent_commit=old)
    late = [CommitOperationAdd("notes.txt", b"two")]
    assert refused_with(lambda: press.create_commit(REPO, late, commit_message="Late", parent_commit=old)) == 412
    assert press.model_info(REPO).sha == new.oid


def check_many_operations_in_one_commit() -> None:
    info = press.create_commit(
        REPO,
        [
            CommitOperationAdd("added.txt", b"added"),
            CommitOperationDelete("notes.txt"),
            CommitOperationDelete("empty.bin"),
            CommitOperationCopy("Tiny-Q8_0.gguf", "copies/Tiny-Q8_0.gguf"),
            CommitOperationCopy("README.md", "copies/README.md"),
        ],
        commit_message="Many",
    )
    files = {item.path: item for item in nobody.list_repo_tree(REPO, revision=info.oid, recursive=True)}
    assert {"added.txt", "copies/Tiny-Q8_0.gguf", "copies/README.md"} <= set(files)
    assert "notes.txt" not in files and "empty.bin" not in files
    copy, source = files["copies/Tiny-Q8_0.gguf"], files["Tiny-Q8_0.gguf"]
    assert isinstance(copy, RepoFile) and isinstance(source, RepoFile)
    assert copy.blob_id == source.blob_id
    press.delete_folder("copies", REPO)
    assert not nobody.file_exists(REPO, "copies/README.md")
    absent = refusal(lambda: press.delete_file("never.txt", REPO))
    assert isinstance(absent, EntryNotFoundError)


def check_download() -> None:
    head = nobody.model_info(REPO).sha
    folder = Path(
        snapshot_download(REPO, endpoint=ENDPOINT, token=False, revision="try/one", cache_dir=fresh_cache("branch"))
    )
    assert (folder / "branch.txt").read_bytes() == b"here"
    assert sha256((folder / "Tiny-Q8_0.gguf").read_bytes()) == sha256(WEIGHTS)
    folder = Path(snapshot_download(REPO, endpoint=ENDPOINT, token=False, revision=head, cache_dir=fresh_cache("sha")))
    assert folder.name == head
    assert (folder / "small/Tiny-Q2_K.gguf").read_bytes() == SMALL_WEIGHTS
    assert not (folder / "branch.txt").exists()
    file = hf_hub_download(
        REPO, "README.md", endpoint=ENDPOINT, token=False, revision="v1", cache_dir=fresh_cache("tag")
    )
    assert Path(file).read_bytes() == CARD


def check_hf_download_command() -> None:
    target = WORK / "hf"
    hf_download(REPO, "--include", "*.gguf", "--local-dir", target, home="home")
    assert sha256((target / "Tiny-Q8_0.gguf").read_bytes()) == sha256(WEIGHTS)
    assert (target / "small/Tiny-Q2_K.gguf").read_bytes() == SMALL_WEIGHTS
    assert not (target / "README.md").exists()


def check_missing() -> None:
    cache = fresh_cache("missing")
    for error, repo, name, revision in (
        (EntryNotFoundError, REPO, "absent.txt", "main"),
        (RevisionNotFoundError, REPO, "README.md", "absent"),
        (RevisionNotFoundError, REPO, "README.md", "0" * 40),
        (RepositoryNotFoundError, "press/absent", "README.md", "main"),
    ):
        try:
            hf_hub_download(repo, name, endpoint=ENDPOINT, token=False, revision=revision, cache_dir=cache)
        except error:
            continue
        raise AssertionError(f"{repo} {name} {revision}: no {error.__name__}")


def check_upload_folder() -> None:
    press.create_repo("other/Open")
    folder = WORK / "folder"
    (folder / "sub dir").mkdir(parents=True)
    (folder / "sub dir" / "naïve 100%.txt").write_bytes(b"odd name")
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    info = press.upload_folder(repo_id="other/Open", folder_path=folder, commit_message="Folder")
    again = press.upload_folder(repo_id="other/Open", folder_path=folder, commit_message="Folder")
    assert again.oid == info.oid
    got = snapshot_download("other/Open", endpoint=ENDPOINT, token=False, cache_dir=fresh_cache("folder-cache"))
    assert Path(got, "sub dir", "naïve 100%.txt").read_bytes() == b"odd name"
    assert sha256(Path(got, "model.safetensors").read_bytes()) == sha256(WEIGHTS)


def check_card_validation() -> None:
    bad = b"---\nlicense: [1, 2]\n---\n"
    try:
        press.upload_file(repo_id=REPO, path_in_repo="README.md", path_or_fileobj=bad)
    except ValueError as error:
        assert '"license" must be a string or a list of strings' in str(error)
        return
    raise AssertionError("a wrong card was taken")


if __name__ == "__main__":
    run_checks(globals())
