"""Datasets: with both major versions of the unmodified client, and the places where they must not appear."""

from __future__ import annotations

import hashlib
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from quantpress.localhub.database import initialise
from quantpress.localhub.server import RunningHub, running_hub
from tests.quantpress.localhub.contracts import CLIENTS, passed_checks

if TYPE_CHECKING:
    from tests.quantpress.localhub.conftest import LiveHub

DATASETS = [
    "create",
    "upload",
    "same_upload_makes_no_commit",
    "info",
    "files",
    "branches_and_tags",
    "stale_parent",
    "download",
    "missing",
    "lists",
    "tokens",
    "private",
    "gated",
    "move_and_delete",
    "upload_folder",
]
REPO_TYPES = [
    "neither_is_found_as_the_other",
    "lists",
    "the_same_id_is_two_repos",
    "one_moves_and_goes_without_the_other",
    "spaces_are_refused",
]


@pytest.mark.slow
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(("contract", "checks"), [("datasets_contract", DATASETS), ("repo_types_contract", REPO_TYPES)])
def test_client_contract(contract: str, checks: list[str], client: str, tmp_path: Path) -> None:
    assert passed_checks(contract, client, tmp_path) == checks


GGUF = b"GGUF of a dataset"


@pytest.fixture(scope="module")
def with_dataset(live_hub: LiveHub) -> LiveHub:
    """The Hub with the dataset ``press/set``. If this repo were a model, its file would make it an image for Ollama."""
    live_hub.create("set", "dataset")
    line = {"key": "file", "value": {"path": "x-Q4_K_M.gguf", "content": GGUF.decode(), "encoding": "utf-8"}}
    assert live_hub.commit(line, repo="press/set", repo_type="dataset").status == 200
    assert live_hub.send("GET", "/datasets/press/set/resolve/main/x-Q4_K_M.gguf").body == GGUF
    return live_hub


def test_a_dataset_is_in_no_list_of_models(with_dataset: LiveHub) -> None:
    assert b"press/set" not in with_dataset.send("GET", "/").body
    assert b"press/set" not in with_dataset.send("GET", "/?search=set").body
    assert b"press/set" not in with_dataset.send("GET", "/api/models", token=with_dataset.read_token).body
    assert [info["id"] for info in with_dataset.send("GET", "/api/datasets?search=set").json()] == ["press/set"]


DIGEST = "sha256:" + hashlib.sha256(GGUF).hexdigest()


@pytest.mark.parametrize(
    "address",
    [
        "/press/set",
        "/press/set/tree/main",
        "/press/set/commits/main",
        "/press/set/resolve/main/x-Q4_K_M.gguf",
        "/api/models/press/set",
        "/api/models/press/set/tree/main",
        "/api/models/datasets/set",
        "/api/models/datasets%2Fpress/set",
        "/datasets%2Fpress/set/resolve/main/x-Q4_K_M.gguf",
        "/%64atasets/press/set/resolve/main/x-Q4_K_M.gguf",
        "/api/%64atasets/press/set",
        "/v2/press/set/manifests/Q4_K_M",
        f"/v2/press/set/blobs/{DIGEST}",
        "/v2/datasets%2Fpress/set/manifests/Q4_K_M",
        "/v2/datasets/press/set/manifests/Q4_K_M",
        "/datasets/press/m/resolve/main/.gitattributes",
        "/api/datasets/press/m",
    ],
)
def test_no_address_of_one_type_finds_a_repo_of_the_other(with_dataset: LiveHub, address: str) -> None:
    answer = with_dataset.send("GET", address, token=with_dataset.write_token)
    assert answer.status == 404
    assert GGUF not in answer.body


@pytest.mark.parametrize("address", ["/api/models/press/set", "/press/set/resolve/main/x", "/api/datasets/press/m",
                                     "/datasets/press/m/resolve/main/.gitattributes",
                                     "/v2/press/set/manifests/Q4_K_M"])  # fmt: skip
def test_the_client_is_told_that_there_is_no_such_repo(with_dataset: LiveHub, address: str) -> None:
    answer = with_dataset.send("GET", address)
    assert (answer.status, answer.headers["X-Error-Code"]) == (404, "RepoNotFound")


def test_an_upload_to_one_type_is_none_to_the_other(with_dataset: LiveHub) -> None:
    for address, status in (("/datasets/press/set", 200), ("/press/set", 404), ("/datasets/press/m", 404)):
        answer = with_dataset.send(
            "POST",
            f"{address}.git/info/lfs/objects/batch",
            token=with_dataset.write_token,
            operation="upload",
            objects=[{"oid": "1" * 64, "size": 5}],
        )
        assert answer.status == status
        if status == 200:
            verify = answer.json()["objects"][0]["actions"]["verify"]["href"]
            assert verify == f"{with_dataset.hub.endpoint}{address}.git/info/lfs/objects/verify"


@pytest.mark.parametrize(
    ("item", "status"),
    [
        ({"type": "dataset", "id": "press/set"}, 400),
        ({"type": "model", "id": "press/set"}, 404),
        ({"type": "model", "id": "datasets/press/set"}, 400),
    ],
)
def test_a_collection_takes_no_dataset(with_dataset: LiveHub, item: dict[str, str], status: int) -> None:
    hub, token = with_dataset, with_dataset.write_token
    made = hub.send("POST", "/api/collections", token=token, namespace="press", title=f"{item['type']} {item['id']}")
    address = f"/api/collections/{made.json()['slug']}"
    assert hub.send("POST", f"{address}/items", token=token, item=item).status == status
    assert hub.send("GET", address).json()["items"] == []


@pytest.mark.parametrize(
    "fields",
    [
        {"organization": "datasets", "name": "x"},
        {"organization": "datasets/press", "name": "x"},
        {"organization": "datasets/press", "name": "x", "type": "dataset"},
        {"organization": "press", "name": "../x", "type": "dataset"},
        {"organization": "press", "name": "x", "type": "datasets"},
        {"organization": "press", "name": "x", "type": ["dataset"]},
        {"organization": "press", "name": "x", "type": "space"},
    ],
)
def test_no_name_makes_a_repo_of_another_type(live_hub: LiveHub, fields: dict[str, Any]) -> None:
    answer = live_hub.send("POST", "/api/repos/create", token=live_hub.write_token, **fields)
    assert (answer.status, answer.headers["X-Error-Code"]) == (400, "BadRequest")


@pytest.mark.parametrize(
    "path",
    ["../../../../etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/hub.sqlite3", "..%5c..%5cx", "/etc/passwd",
     "%2fetc%2fpasswd", "a%00b", "hub.sqlite3", "press%2Fset", "datasets/press/set", "press/set.git", "press/../set",
     "press%00/set"],
)  # fmt: skip
def test_no_hostile_name_is_found(with_dataset: LiveHub, path: str) -> None:
    for start in ("/datasets/press/set/resolve/main/", "/datasets/press/set/resolve/", "/datasets/press/", "/datasets/",
                  "/api/datasets/press/set/tree/main/", "/api/datasets/press/set/revision/", "/api/datasets/press/",
                  "/api/datasets/"):  # fmt: skip
        answer = with_dataset.send("GET", start + path)
        assert answer.status == 404, (start, answer.status)
        assert b"root:" not in answer.body and b"SQLite" not in answer.body and GGUF not in answer.body


def test_names_that_are_words_of_addresses(live_hub: LiveHub) -> None:
    """A model called ``datasets`` is a model, and a dataset called ``resolve`` is found."""
    live_hub.create("datasets")
    assert live_hub.send("GET", "/press/datasets/resolve/main/.gitattributes").status == 200
    assert live_hub.send("GET", "/api/models/press/datasets").json()["modelId"] == "press/datasets"
    live_hub.create("resolve", "dataset")
    assert live_hub.send("GET", "/datasets/press/resolve/resolve/main/.gitattributes").status == 200
    assert live_hub.send("GET", "/api/datasets/press/resolve").json()["id"] == "press/resolve"
    assert live_hub.send("GET", "/api/datasets/press/datasets").status == 404


def test_the_owner_gates_a_dataset_and_not_the_model_of_its_id(live_hub: LiveHub) -> None:
    live_hub.create("one-gated")
    live_hub.create("one-gated", "dataset")

    def command(*arguments: str) -> None:
        line = [sys.executable, "-m", "quantpress.localhub", *arguments, "--root", str(live_hub.hub.root)]
        subprocess.run(line, check=True)

    file = "press/one-gated/resolve/main/.gitattributes"
    command("gate", "press/one-gated", "--repo-type", "dataset")
    assert live_hub.send("GET", f"/{file}").status == 200
    assert live_hub.send("GET", f"/datasets/{file}", token=live_hub.read_token).headers["X-Error-Code"] == "GatedRepo"
    command("grant", "press/one-gated", "reader", "--repo-type", "dataset")
    assert live_hub.send("GET", f"/datasets/{file}", token=live_hub.read_token).status == 200
    assert live_hub.send("GET", f"/datasets/{file}").status == 403
    command("ungate", "press/one-gated", "--repo-type", "dataset")
    assert live_hub.send("GET", f"/datasets/{file}").status == 200


#: A model as the first version of this Hub stored it: a repo with one commit and an empty tree.
BEFORE = """
INSERT INTO repos VALUES (7, 'press', 'old', 0, NULL, '2024-01-31T12:00:00.000Z');
INSERT INTO trees VALUES ('4b825dc642cb6eb9a060e54bf8d69288fbee4904');
INSERT INTO commits VALUES (7, 'c0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ff', '4b825dc642cb6eb9a060e54bf8d69288fbee4904',
    NULL, 'press', 'initial commit', '', '2024-01-31T12:00:00.000Z');
INSERT INTO refs VALUES (7, 'branch', 'main', 'c0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ff', '');
"""


def test_a_folder_from_before_there_were_datasets_needs_no_migration(
    tmp_path: Path, live: Callable[[RunningHub], LiveHub]
) -> None:
    initialise(tmp_path)
    with closing(sqlite3.connect(tmp_path / "hub.sqlite3")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        db.executescript(BEFORE)
    with running_hub(tmp_path) as hub:
        client = live(hub)
        assert client.send("GET", "/api/models/press/old").json()["sha"] == "c0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ff"
        assert client.send("GET", "/api/datasets").json() == []
        client.create("old", "dataset")
        assert [info["id"] for info in client.send("GET", "/api/models").json()] == ["press/old"]
        assert [info["id"] for info in client.send("GET", "/api/datasets").json()] == ["press/old"]
