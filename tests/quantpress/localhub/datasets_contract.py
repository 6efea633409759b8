"""Client contract: datasets."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import DatasetInfo, RepoFile

from tests.quantpress.localhub.contract_client import (
    ENDPOINT,
    READ_TOKEN,
    SMALL_WEIGHTS,
    WEIGHTS,
    WORK,
    WRITE_TOKEN,
    fresh_cache,
    hf_download,
    nobody,
    press,
    reader,
    refusal,
    refused_with,
    run_checks,
    sha256,
    wrong,
)

DATASET = "press/figures"
CARD = b"""---
license: cc-by-4.0
pretty_name: Figures
task_categories:
- text-generation
language:
- en
tags:
- press
---
# Figures
"""


def check_create() -> None:
    url = press.create_repo(DATASET, repo_type="dataset")
    assert (url.repo_type, url.repo_id, str(url)) == ("dataset", DATASET, f"{ENDPOINT}/datasets/{DATASET}")
    again = press.create_repo(DATASET, repo_type="dataset", exist_ok=True)
    assert (again.repo_type, again.repo_id) == ("dataset", DATASET)
    taken = refusal(lambda: press.create_repo(DATASET, repo_type="dataset"))
    assert taken.response.status_code == 409
    assert "You already created this dataset repo" in str(taken)
    assert press.create_repo("alone", repo_type="dataset").repo_id == "press/alone"
    press.delete_repo("alone", repo_type="dataset")


def check_upload() -> None:
    info = press.create_commit(
        DATASET,
        [
            CommitOperationAdd("README.md", CARD),
            CommitOperationAdd("data/train.parquet", WEIGHTS),
            CommitOperationAdd("data/test.parquet", SMALL_WEIGHTS),
        ],
        commit_message="Add files",
        repo_type="dataset",
    )
    assert info.commit_url == f"{ENDPOINT}/datasets/{DATASET}/commit/{info.oid}"
    assert (info.repo_url.repo_type, info.repo_url.repo_id) == ("dataset", DATASET)
    one = press.upload_file(
        repo_id=DATASET, repo_type="dataset", path_in_repo="data/rows.jsonl", path_or_fileobj=b'{"a": 1}\n'
    )
    assert nobody.dataset_info(DATASET).sha == one.oid != info.oid


def check_same_upload_makes_no_commit() -> None:
    before = press.dataset_info(DATASET).sha
    again = press.create_commit(
        DATASET,
        [CommitOperationAdd("README.md", CARD), CommitOperationAdd("data/train.parquet", WEIGHTS)],
        commit_message="Again",
        repo_type="dataset",
    )
    assert again.oid == before
    titles = [commit.title for commit in press.list_repo_commits(DATASET, repo_type="dataset")]
    assert titles[1:] == ["Add files", "initial commit"]


def check_info() -> None:
    info = nobody.repo_info(DATASET, repo_type="dataset", files_metadata=True)
    assert isinstance(info, DatasetInfo)
    assert (info.id, info.author, info.private, info.gated) == (DATASET, "press", False, False)
    assert info.card_data is not None and info.card_data.license == "cc-by-4.0"
    assert info.tags == ["language:en", "license:cc-by-4.0", "task_categories:text-generation", "press"]
    assert info.siblings is not None
    sizes = {file.rfilename: file.size for file in info.siblings}
    assert list(sizes) == [
        ".gitattributes", "README.md", "data/rows.jsonl", "data/test.parquet", "data/train.parquet",
    ]  # fmt: skip
    assert sizes["data/train.parquet"] == 21_000_001
    lfs = {file.rfilename: file.lfs.sha256 for file in info.siblings if file.lfs is not None}
    assert lfs == {"data/train.parquet": sha256(WEIGHTS), "data/test.parquet": sha256(SMALL_WEIGHTS)}
    assert nobody.repo_exists(DATASET, repo_type="dataset")


def check_files() -> None:
    assert nobody.list_repo_files(DATASET, repo_type="dataset") == [
        ".gitattributes", "README.md", "data/rows.jsonl", "data/test.parquet", "data/train.parquet",
    ]  # fmt: skip
    flat = [item.path for item in nobody.list_repo_tree(DATASET, repo_type="dataset")]
    assert flat == [".gitattributes", "README.md", "data"]
    inside = list(nobody.list_repo_tree(DATASET, "data", repo_type="dataset", expand=True))
    titles = {item.path: item.last_commit.title for item in inside if item.last_commit is not None}
    assert titles["data/test.parquet"] == "Add files"
    found = nobody.get_paths_info(DATASET, ["README.md", "data", "absent"], repo_type="dataset")
    assert [item.path for item in found] == ["README.md", "data"]
    assert isinstance(found[0], RepoFile) and found[0].size == len(CARD)
    assert nobody.file_exists(DATASET, "README.md", repo_type="dataset")
    assert not nobody.file_exists(DATASET, "absent", repo_type="dataset")


def check_branches_and_tags() -> None:
    head = press.dataset_info(DATASET).sha
    press.create_branch(DATASET, branch="try/one", repo_type="dataset")
    press.create_branch(DATASET, branch="try/one", repo_type="dataset", exist_ok=True)
    press.create_tag(DATASET, tag="v1", repo_type="dataset")
    assert refused_with(lambda: press.create_tag(DATASET, tag="v1", repo_type="dataset")) == 409
    press.create_commit(
        DATASET,
        [CommitOperationAdd("branch.txt", b"here"), CommitOperationDelete("data/test.parquet")],
        commit_message="Branch",
        repo_type="dataset",
        revision="try/one",
    )
    refs = nobody.list_repo_refs(DATASET, repo_type="dataset")
    assert [branch.name for branch in refs.branches] == ["main", "try/one"]
    assert [(tag.name, tag.target_commit) for tag in refs.tags] == [("v1", head)]
    assert nobody.dataset_info(DATASET, revision="try/one").sha == refs.branches[1].target_commit
    assert nobody.dataset_info(DATASET, revision="v1").sha == head == nobody.dataset_info(DATASET).sha
    press.create_branch(DATASET, branch="passing", repo_type="dataset")
    press.delete_branch(DATASET, branch="passing", repo_type="dataset")
    press.create_tag(DATASET, tag="passing", repo_type="dataset")
    press.delete_tag(DATASET, tag="passing", repo_type="dataset")
    assert not nobody.revision_exists(DATASET, "passing", repo_type="dataset")


def check_stale_parent() -> None:
    old = press.dataset_info(DATASET, revision="v1").sha
    press.upload_file(repo_id=DATASET, repo_type="dataset", path_in_repo="notes.txt", path_or_fileobj=b"one")
    late = [CommitOperationAdd("notes.txt", b"two")]
    assert (
        refused_with(
            lambda: press.create_commit(DATASET, late, commit_message="Late", parent_commit=old, repo_type="dataset")
        )
        == 412
    )


def check_download() -> None:
    file = Path(
        hf_hub_download(
            DATASET, "README.md", repo_type="dataset", endpoint=ENDPOINT, token=False, revision="v1",
            cache_dir=fresh_cache("file"),
        )
    )  # fmt: skip
    assert file.read_bytes() == CARD
    assert (WORK / "file" / "datasets--press--figures").is_dir()
    folder = Path(
        snapshot_download(
            DATASET, repo_type="dataset", endpoint=ENDPOINT, token=False, revision="try/one",
            cache_dir=fresh_cache("snapshot"),
        )
    )  # fmt: skip
    assert folder.name == nobody.dataset_info(DATASET, revision="try/one").sha
    assert sha256((folder / "data/train.parquet").read_bytes()) == sha256(WEIGHTS)
    assert (folder / "branch.txt").read_bytes() == b"here"
    assert not (folder / "data/test.parquet").exists()
    target = WORK / "hf"
    hf_download(DATASET, "--repo-type", "dataset", "--include", "data/*", "--local-dir", target, home="home")
    assert sha256((target / "data/train.parquet").read_bytes()) == sha256(WEIGHTS)
    assert not (target / "README.md").exists()


def check_missing() -> None:
    cache = fresh_cache("missing")
    for error, repo, name, revision in (
        (EntryNotFoundError, DATASET, "absent.txt", "main"),
        (RevisionNotFoundError, DATASET, "README.md", "absent"),
        (RepositoryNotFoundError, "press/absent", "README.md", "main"),
    ):
        try:
            hf_hub_download(
                repo, name, repo_type="dataset", endpoint=ENDPOINT, token=False, revision=revision, cache_dir=cache
            )
        except error:
            continue
        raise AssertionError(f"{repo} {name} {revision}: no {error.__name__}")


def check_lists() -> None:
    press.create_repo("other/words", repo_type="dataset")
    assert [d.id for d in nobody.list_datasets()] == ["other/words", DATASET]
    assert [d.id for d in nobody.list_datasets(author="press")] == [DATASET]
    assert [d.id for d in nobody.list_datasets(search="WORDS")] == ["other/words"]
    assert [d.id for d in nobody.list_datasets(filter="press", language="en")] == [DATASET]
    assert [d.id for d in nobody.list_datasets(task_categories="summarization")] == []
    assert len(list(nobody.list_datasets(limit=1))) == 1


def check_tokens() -> None:
    for api, status in ((wrong, 401), (nobody, 401), (reader, 403)):
        for action in (
            lambda api=api: api.create_repo("press/refused", repo_type="dataset"),
            lambda api=api: api.upload_file(
                repo_id=DATASET, repo_type="dataset", path_in_repo="x.txt", path_or_fileobj=b"x"
            ),
            lambda api=api: api.create_branch(DATASET, branch="refused", repo_type="dataset"),
            lambda api=api: api.create_tag(DATASET, tag="refused", repo_type="dataset"),
            lambda api=api: api.delete_repo(DATASET, repo_type="dataset"),
            lambda api=api: api.update_repo_settings(DATASET, private=True, repo_type="dataset"),
            lambda api=api: api.move_repo(DATASET, "press/refused", repo_type="dataset"),
        ):
            assert refused_with(action) == status


def check_private() -> None:
    press.create_repo("press/secret", private=True, repo_type="dataset")
    press.upload_file(repo_id="press/secret", repo_type="dataset", path_in_repo="x.txt", path_or_fileobj=b"x")
    assert isinstance(refusal(lambda: nobody.dataset_info("press/secret")), RepositoryNotFoundError)
    assert isinstance(refusal(lambda: nobody.auth_check("press/secret", repo_type="dataset")), RepositoryNotFoundError)
    assert reader.dataset_info("press/secret").private is True
    reader.auth_check("press/secret", repo_type="dataset")
    assert [d.id for d in nobody.list_datasets(search="secret")] == []
    assert [d.id for d in reader.list_datasets(search="secret")] == ["press/secret"]
    press.update_repo_settings("press/secret", private=False, repo_type="dataset")
    assert nobody.dataset_info("press/secret").private is False


def check_gated() -> None:
    press.update_repo_settings("press/secret", gated="manual", repo_type="dataset")
    assert nobody.dataset_info("press/secret").gated == "manual"
    assert isinstance(refusal(lambda: reader.auth_check("press/secret", repo_type="dataset")), GatedRepoError)
    press.auth_check("press/secret", repo_type="dataset")
    for token in (False, READ_TOKEN):
        try:
            hf_hub_download(
                "press/secret", "x.txt", repo_type="dataset", endpoint=ENDPOINT, token=token, cache_dir=WORK / "gated"
            )
        except GatedRepoError as error:
            assert "Access to dataset press/secret is restricted" in str(error)
            continue
        raise AssertionError("a gated file was given away")
    owned = hf_hub_download(
        "press/secret", "x.txt", repo_type="dataset", endpoint=ENDPOINT, token=WRITE_TOKEN, cache_dir=WORK / "owned"
    )
    assert Path(owned).read_bytes() == b"x"
    press.update_repo_settings("press/secret", gated=False, repo_type="dataset")
    assert nobody.dataset_info("press/secret").gated is False


def check_move_and_delete() -> None:
    press.move_repo("press/secret", "other/open", repo_type="dataset")
    assert isinstance(refusal(lambda: press.dataset_info("press/secret")), RepositoryNotFoundError)
    assert nobody.file_exists("other/open", "x.txt", repo_type="dataset")
    assert refused_with(lambda: press.move_repo("other/open", DATASET, repo_type="dataset")) == 409
    press.delete_repo("other/open", repo_type="dataset")
    assert isinstance(refusal(lambda: press.delete_repo("other/open", repo_type="dataset")), RepositoryNotFoundError)
    press.delete_repo("other/open", repo_type="dataset", missing_ok=True)


def check_upload_folder() -> None:
    folder = WORK / "folder"
    (folder / "sub dir").mkdir(parents=True)
    (folder / "sub dir" / "naïve 100%.txt").write_bytes(b"odd name")
    # The dataset's name is also a word in the Hub's addresses.
    press.create_repo("press/resolve", repo_type="dataset")
    press.upload_folder(repo_id="press/resolve", repo_type="dataset", folder_path=folder)
    got = snapshot_download(
        "press/resolve", repo_type="dataset", endpoint=ENDPOINT, token=False, cache_dir=fresh_cache("folder-cache")
    )
    assert Path(got, "sub dir", "naïve 100%.txt").read_bytes() == b"odd name"


if __name__ == "__main__":
    run_checks(globals())
