"""Client contract: making, listing, closing, moving and deleting models, and who may do so."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import CommitOperationAdd, hf_hub_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from tests.quantpress.localhub.contract_client import (
    CARD,
    ENDPOINT,
    READ_TOKEN,
    SMALL_WEIGHTS,
    WORK,
    WRITE_TOKEN,
    fresh_cache,
    nobody,
    press,
    reader,
    refusal,
    refused_with,
    run_checks,
    wrong,
)

REPO = "press/Tiny-GGUF"


def check_whoami() -> None:
    assert press.whoami()["name"] == "press"
    assert reader.whoami()["auth"]["accessToken"]["role"] == "read"


def check_create() -> None:
    url = press.create_repo(REPO)
    assert url.repo_id == REPO and str(url) == f"{ENDPOINT}/{REPO}"
    assert press.create_repo(REPO, exist_ok=True).repo_id == REPO
    assert refused_with(lambda: press.create_repo(REPO)) == 409
    assert press.create_repo("alone").repo_id == "press/alone"
    press.delete_repo("alone")


def check_lists() -> None:
    files = [CommitOperationAdd("README.md", CARD), CommitOperationAdd("Tiny-Q8_0.gguf", SMALL_WEIGHTS)]
    press.create_commit(REPO, files, commit_message="Add files")
    press.create_repo("other/Tiny-AWQ")
    assert [m.id for m in nobody.list_models(author="press")] == [REPO]
    assert [m.id for m in nobody.list_models(search="awq")] == ["other/Tiny-AWQ"]
    assert [m.id for m in nobody.list_models(filter="base_model:quantized:maker/Tiny")] == [REPO]
    assert [m.id for m in nobody.list_models(filter=["gguf", "license:mit"])] == []
    assert [m.id for m in nobody.list_models(limit=1)] == ["other/Tiny-AWQ"]
    assert {m.id for m in nobody.list_models(full=True)} == {REPO, "other/Tiny-AWQ"}


def check_tokens() -> None:
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
            assert refused_with(action) == status
    assert refused_with(wrong.whoami) == 401
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


if __name__ == "__main__":
    run_checks(globals())
