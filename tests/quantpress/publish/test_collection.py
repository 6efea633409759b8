"""One collection per base model, with all its formats, kept in step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from quantpress.errors import QuantpressError
from quantpress.localhub.server import running_hub
from quantpress.publish.collection import keep_collection
from tests.support.line import bad_line

MODEL = "maker/SmolLM2-135M-Instruct"
REPOS = [f"press/SmolLM2-135M-Instruct-{suffix}" for suffix in ("GGUF", "GPTQ", "AWQ", "EXL3", "EXL2")]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[HfApi]:
    with running_hub(tmp_path / "hub") as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.create_token("press", "write"))
        for repo_id in REPOS:
            api.create_repo(repo_id)
        yield api


def test_a_format_that_comes_later_joins_the_others(api: HfApi) -> None:
    for repo_ids, expected in [(2, 2), (2, 2), (4, 4), (5, 5), (5, 5), (1, 5)]:
        keep_collection(api, "press", MODEL, REPOS[:repo_ids])
        (listed,) = api.list_collections(owner="press")
        found = api.get_collection(listed.slug)
        assert [item.item_id for item in found.items] == REPOS[:expected]
    assert found.title == "SmolLM2-135M-Instruct, quantized"
    assert found.description == "maker/SmolLM2-135M-Instruct in several formats, measured"


def test_what_a_person_added_stays(api: HfApi) -> None:
    keep_collection(api, "press", MODEL, REPOS[:1])
    (listed,) = api.list_collections(owner="press")
    api.create_repo("press/Favourite")
    api.add_collection_item(listed.slug, "press/Favourite", "model")
    keep_collection(api, "press", MODEL, REPOS[:2])
    assert [item.item_id for item in api.get_collection(listed.slug).items] == [REPOS[0], "press/Favourite", REPOS[1]]


def test_each_model_has_its_own_and_long_names_are_cut(api: HfApi) -> None:
    long = "maker/" + "x" * 96
    for source, repo_id in ((MODEL, REPOS[0]), (long, REPOS[1]), (long, REPOS[2])):
        keep_collection(api, "press", source, [repo_id])
    assert {each.title: len(each.items) for each in api.list_collections(owner="press")} == {
        "SmolLM2-135M-Instruct, quantized": 1,
        "x" * 59: 2,
    }


def test_nothing_published_makes_no_collection(api: HfApi) -> None:
    keep_collection(api, "press", MODEL, [])
    assert list(api.list_collections()) == []


def test_a_refusal_is_one_line(api: HfApi) -> None:
    with pytest.raises(QuantpressError, match="keeping the collection 'SmolLM2-135M-Instruct, quantized' of press on"):
        keep_collection(api, "press", MODEL, ["press/absent"])


def test_a_hub_without_collections_has_none_to_be_kept(api: HfApi) -> None:
    with bad_line(api.endpoint) as line:
        line.absent = "/api/collections"
        there = HfApi(endpoint=line.endpoint, token=api.token)
        assert keep_collection(there, "press", MODEL, REPOS[:1]) is None
    assert list(api.list_collections()) == []
