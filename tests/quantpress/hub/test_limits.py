"""The pace of commits, the upload budget, and the storage that a namespace takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import HfApi

from quantpress.hub.limits import CommitPace
from quantpress.localhub.server import running_hub
from quantpress.plan.budget import UploadBudget, storage_used


class Clock:
    """A clock whose time passes only during ``sleep``."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_commits_wait_for_the_window() -> None:
    clock, said = Clock(), list[float]()
    pace = CommitPace(clock, clock.sleep, said.append, commits=3, seconds=60.0)
    times = []
    for _ in range(7):
        pace.take()
        times.append(clock.now)
        clock.now += 5
    assert times == [0, 5, 10, 60, 65, 70, 120]
    assert said == [45, 45]


def test_slow_commits_never_wait() -> None:
    clock, said = Clock(), list[float]()
    pace = CommitPace(clock, clock.sleep, said.append, commits=2, seconds=60.0)
    for _ in range(10):
        pace.take()
        clock.now += 31
    assert said == []


def test_what_does_not_fit_is_left_and_what_fits_is_not() -> None:
    budget = UploadBudget(10_000_000_000)
    assert budget.refusal(6_000_000_000) == ""
    assert budget.refusal(6_500_000_000) == (
        "about 2.50 GB more than the upload budget of 10.00 GB a run: left to a later run, "
        "or raise QUANTPRESS_UPLOAD_BUDGET"
    )
    assert budget.refusal(4_000_000_000) == ""
    assert budget.refusal(1) != ""


@pytest.mark.parametrize("upload", [0, 1, 10**15])
def test_without_a_budget_everything_fits(upload: int) -> None:
    assert UploadBudget(None).refusal(upload) == ""


def test_storage_is_the_sum_of_the_namespaces_models(tmp_path: Path) -> None:
    with running_hub(tmp_path / "hub") as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.create_token("press", "write"))
        for repo, size in [("press/a", 1000), ("press/b", 500), ("others/c", 70)]:
            api.create_repo(repo)
            api.upload_file(repo_id=repo, path_in_repo="model.gguf", path_or_fileobj=b"\0" * size)
        attributes = api.get_paths_info("press/a", ".gitattributes")[0].size
        assert storage_used(api, "press") == 1500 + 2 * attributes
        assert storage_used(api, "nobody") == 0


def test_a_hub_that_does_not_list_models_does_not_tell(tmp_path: Path) -> None:
    with running_hub(tmp_path / "hub") as hub:
        assert storage_used(HfApi(endpoint=f"{hub.endpoint}/elsewhere"), "press") is None
