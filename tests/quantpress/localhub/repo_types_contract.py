"""Client contract: a model and a dataset are two repos, even if they have the same id. Spaces are refused."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import RepositoryNotFoundError

from tests.quantpress.localhub.contract_client import (
    ENDPOINT,
    WORK,
    nobody,
    press,
    refusal,
    refused_with,
    run_checks,
)

MODEL, DATASET = "press/model", "press/dataset"


def check_neither_is_found_as_the_other() -> None:
    press.create_repo(MODEL)
    press.create_repo(DATASET, repo_type="dataset")
    for action in (
        lambda: press.model_info(DATASET),
        lambda: list(press.list_repo_tree(DATASET)),
        lambda: press.list_repo_refs(DATASET),
        lambda: press.auth_check(DATASET),
        lambda: press.upload_file(repo_id=DATASET, path_in_repo="x.txt", path_or_fileobj=b"x"),
        lambda: press.create_branch(DATASET, branch="b"),
        lambda: press.update_repo_settings(DATASET, private=True),
        lambda: press.move_repo(DATASET, "press/moved"),
        lambda: press.delete_repo(DATASET),
        lambda: press.dataset_info(MODEL),
        lambda: list(press.list_repo_tree(MODEL, repo_type="dataset")),
        lambda: press.create_tag(MODEL, tag="t", repo_type="dataset"),
        lambda: press.move_repo(MODEL, "press/moved", repo_type="dataset"),
        lambda: press.delete_repo(MODEL, repo_type="dataset"),
    ):
        assert isinstance(refusal(action), RepositoryNotFoundError)
    assert not press.repo_exists(DATASET) and not press.repo_exists(MODEL, repo_type="dataset")
    assert not press.file_exists(DATASET, ".gitattributes")
    assert not press.file_exists(MODEL, ".gitattributes", repo_type="dataset")


def check_lists() -> None:
    assert [m.id for m in nobody.list_models()] == [MODEL]
    assert [d.id for d in nobody.list_datasets()] == [DATASET]


def check_the_same_id_is_two_repos() -> None:
    assert str(press.create_repo("press/both")) == f"{ENDPOINT}/press/both"
    assert str(press.create_repo("press/both", repo_type="dataset")) == f"{ENDPOINT}/datasets/press/both"
    for repo_type in ("model", "dataset"):
        press.upload_file(
            repo_id="press/both",
            repo_type=repo_type,
            path_in_repo="x.bin",  # an LFS object
            path_or_fileobj=f"of the {repo_type}".encode(),
        )
    for repo_type, content in (("model", b"of the model"), ("dataset", b"of the dataset")):
        file = hf_hub_download(
            "press/both", "x.bin", repo_type=repo_type, endpoint=ENDPOINT, token=False, cache_dir=WORK / "both"
        )
        assert Path(file).read_bytes() == content
    press.update_repo_settings("press/both", private=True)
    assert nobody.dataset_info("press/both").private is False
    press.create_tag("press/both", tag="v1", repo_type="dataset")
    assert press.list_repo_refs("press/both").tags == []


def check_one_moves_and_goes_without_the_other() -> None:
    press.move_repo("press/both", MODEL, repo_type="dataset")
    assert nobody.dataset_info(MODEL).id == MODEL
    assert press.model_info("press/both").id == "press/both"
    assert refused_with(lambda: press.move_repo("press/both", MODEL)) == 409
    press.delete_repo(MODEL)
    assert nobody.file_exists(MODEL, "x.bin", repo_type="dataset")
    press.delete_repo(MODEL, repo_type="dataset")
    assert press.file_exists("press/both", "x.bin")


def check_spaces_are_refused() -> None:
    space = refusal(lambda: press.create_repo("press/space", repo_type="space", space_sdk="static"))
    assert space.response.status_code == 400
    assert "This Hub keeps models and datasets only, not a space" in str(space)


if __name__ == "__main__":
    run_checks(globals())
