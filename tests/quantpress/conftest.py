"""Fixtures that tests of several parts share: WikiText-2's archive, and a Hub that can have it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from huggingface_hub import HfApi

from quantpress.localhub.server import RunningHub, running_hub
from tests.support.wikitext import DATASET, archive


@pytest.fixture
def known_archive(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The stand-in archive. Its hash replaces the real archive's, so that it passes for the real one."""
    content = archive()
    monkeypatch.setattr("quantpress.evaluation.wikitext.ARCHIVE_SHA256", hashlib.sha256(content).hexdigest())
    return content


@pytest.fixture(scope="session")
def dataset_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with running_hub(tmp_path_factory.mktemp("dataset-hub")) as running:
        yield running


@pytest.fixture
def bare_hub(dataset_hub: RunningHub) -> Iterator[HfApi]:
    """A Hub that does not have WikiText-2 at the start of a test."""
    client = HfApi(endpoint=dataset_hub.endpoint, token=dataset_hub.create_token("press", "write"))
    yield client
    client.delete_repo(DATASET, repo_type="dataset", missing_ok=True)
