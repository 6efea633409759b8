"""What the unmodified huggingface_hub client must be able to do with the embedded Hub.

Run by test_hub_contract.py with an interpreter whose huggingface_hub may be another version than the
project's own; so nothing but huggingface_hub and the standard library is imported here. Arguments: the
endpoint, a write token of user ``press``, a read token of user ``reader``, an empty folder. Prints the name
of each check it passed, one a line.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

# Before huggingface_hub is imported: the embedded Hub does not speak Xet.
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

ENDPOINT, WRITE_TOKEN, READ_TOKEN = sys.argv[1:4]
WORK = Path(sys.argv[4])
REPO = "press/Tiny-GGUF"

press = HfApi(endpoint=ENDPOINT, token=WRITE_TOKEN)
reader = HfApi(endpoint=ENDPOINT, token=READ_TOKEN)
nobody = HfApi(endpoint=ENDPOINT, token=False)

CARD = b"""---
license: apache-2.0
base_model: maker/Tiny
base_model_relation: quantized
library_name: gguf
pipeline_tag: text-generation
tags:
- press
language:
- en
---
# Tiny
"""
WEIGHTS = random.Random(1).randbytes(21_000_001)  # three parts of 8 MiB, the last one short
SMALL_WEIGHTS = random.Random(2).randbytes(5_000)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def refusal(action: Callable[[], object]) -> HfHubHTTPError:
    """The error with which the Hub refuses an action."""
    try:
        action()
    except HfHubHTTPError as error:
        return error
    raise AssertionError("the Hub did not refuse")


def fresh_cache(name: str) -> Path:
    path = WORK / name
    assert not path.exists()
    return path


def check_whoami() -> None:
    assert press.whoami()["name"] == "press"
    assert reader.whoami()["auth"]["accessToken"]["role"] == "read"


def check_create() -> None:
    url = press.create_repo(REPO)
    assert url.repo_id == REPO and str(url) == f"{ENDPOINT}/{REPO}"
    assert press.create_repo(REPO, exist_ok=True).repo_id == REPO
    assert refusal(lambda: press.create_repo(REPO)).response.status_code == 409
    assert press.create_repo("alone").repo_id == "press/alone"
    press.delete_repo("alone")


def check_upload() -> None:
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
    assert model.card_data.license == "apache-2.0" and model.card_data.base_model == "maker/Tiny"
    assert {"license:apache-2.0", "base_model:quantized:maker/Tiny", "press", "gguf", "en"} <= set(model.tags)
    files = {file.rfilename: file for file in model.siblings}
    assert list(files) == [".gitattributes", "README.md", "Tiny-Q8_0.gguf", "empty.bin", "small/Tiny-Q2_K.gguf"]
    assert files["Tiny-Q8_0.gguf"].lfs.sha256 == sha256(WEIGHTS)
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
    assert deep["small/Tiny-Q2_K.gguf"].lfs.sha256 == sha256(SMALL_WEIGHTS)
    assert deep[".gitattributes"].last_commit.title == "initial commit"
    assert deep["small"].last_commit.title == "Add files"
    assert refusal(lambda: list(nobody.list_repo_tree(REPO, "absent"))).response.status_code == 404


def check_paths_info() -> None:
    found = nobody.get_paths_info(REPO, ["README.md", "small", "absent"], expand=True)
    assert [item.path for item in found] == ["README.md", "small"]
    assert found[0].size == len(CARD)
    assert nobody.file_exists(REPO, "README.md") and not nobody.file_exists(REPO, "absent")


def check_branches_and_tags() -> None:
    head = press.model_info(REPO).sha
    press.create_branch(REPO, branch="gptq-4bit-32g-actorder_True")
    press.create_branch(REPO, branch="gptq-4bit-32g-actorder_True", exist_ok=True)
    press.create_branch(REPO, branch="try/one")
    press.create_tag(REPO, tag="v1", tag_message="The first")
    assert refusal(lambda: press.create_tag(REPO, tag="v1")).response.status_code == 409
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
    late = refusal(
        lambda: press.create_commit(
            REPO, [CommitOperationAdd("notes.txt", b"two")], commit_message="Late", parent_commit=old
        )
    )
    assert late.response.status_code == 412
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
    assert files["copies/Tiny-Q8_0.gguf"].blob_id == files["Tiny-Q8_0.gguf"].blob_id
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
    environment = {key: value for key, value in os.environ.items() if "TOKEN" not in key}
    environment |= {"HF_ENDPOINT": ENDPOINT, "HF_HOME": str(fresh_cache("home"))}
    hf = Path(sysconfig.get_path("scripts")) / "hf"
    target = WORK / "hf"
    subprocess.run(
        [hf, "download", REPO, "--include", "*.gguf", "--local-dir", target], env=environment, check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
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


def check_lists() -> None:
    press.create_repo("other/Tiny-AWQ")
    assert [m.id for m in nobody.list_models(author="press")] == [REPO]
    assert [m.id for m in nobody.list_models(search="awq")] == ["other/Tiny-AWQ"]
    assert [m.id for m in nobody.list_models(filter="base_model:quantized:maker/Tiny")] == [REPO]
    assert [m.id for m in nobody.list_models(filter=["gguf", "license:mit"])] == []
    assert [m.id for m in nobody.list_models(limit=1)] == ["other/Tiny-AWQ"]
    assert {m.id for m in nobody.list_models(full=True)} == {REPO, "other/Tiny-AWQ"}


def check_tokens() -> None:
    wrong = HfApi(endpoint=ENDPOINT, token="hf_" + "x" * 40)
    for api, status in ((wrong, 401), (nobody, 401), (reader, 403)):
        for action in (
            lambda api=api: api.create_repo("press/Refused"),
            lambda api=api: api.upload_file(repo_id=REPO, path_in_repo="x.txt", path_or_fileobj=b"x"),
            lambda api=api: api.create_branch(REPO, branch="refused"),
            lambda api=api: api.create_tag(REPO, tag="refused"),
            lambda api=api: api.delete_repo(REPO),
            lambda api=api: api.update_repo_settings(REPO, private=True),
            lambda api=api: api.move_repo(REPO, "press/Refused"),
        ):
            assert refusal(action).response.status_code == status
    assert refusal(wrong.whoami).response.status_code == 401
    assert [m.id for m in nobody.list_models(author="press")] == [REPO]


def check_private() -> None:
    press.create_repo("press/Secret", private=True)
    press.upload_file(repo_id="press/Secret", path_in_repo="x.txt", path_or_fileobj=b"x")
    assert isinstance(refusal(lambda: nobody.model_info("press/Secret")), RepositoryNotFoundError)
    assert reader.model_info("press/Secret").private is True
    try:
        hf_hub_download("press/Secret", "x.txt", endpoint=ENDPOINT, token=False, cache_dir=fresh_cache("private"))
        raise AssertionError("a private file was given to nobody")
    except RepositoryNotFoundError:
        pass
    assert [m.id for m in nobody.list_models(search="Secret")] == []
    assert [m.id for m in reader.list_models(search="Secret")] == ["press/Secret"]
    press.update_repo_settings("press/Secret", private=False)
    assert nobody.model_info("press/Secret").private is False


def check_gated() -> None:
    press.update_repo_settings("press/Secret", gated="manual")
    assert nobody.model_info("press/Secret").gated == "manual"
    for token in (False, READ_TOKEN):
        try:
            hf_hub_download("press/Secret", "x.txt", endpoint=ENDPOINT, token=token, cache_dir=WORK / "gated")
            raise AssertionError("a gated file was given away")
        except GatedRepoError:
            pass
    owned = hf_hub_download("press/Secret", "x.txt", endpoint=ENDPOINT, token=WRITE_TOKEN, cache_dir=WORK / "owned")
    assert Path(owned).read_bytes() == b"x"
    press.update_repo_settings("press/Secret", gated=False)
    assert nobody.model_info("press/Secret").gated is False


def check_move_and_delete() -> None:
    press.move_repo("press/Secret", "other/Open")
    assert isinstance(refusal(lambda: press.model_info("press/Secret")), RepositoryNotFoundError)
    assert nobody.file_exists("other/Open", "x.txt")
    press.delete_repo("other/Open")
    assert isinstance(refusal(lambda: press.delete_repo("other/Open")), RepositoryNotFoundError)
    press.delete_repo("other/Open", missing_ok=True)
    press.create_repo("other/Open")
    assert not nobody.file_exists("other/Open", "x.txt")


def check_upload_folder() -> None:
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


def main() -> None:
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            check()
            print(name.removeprefix("check_"), flush=True)


if __name__ == "__main__":
    main()
