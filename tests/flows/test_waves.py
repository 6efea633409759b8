"""A ladder of GGUF variants exceeds the disk budget, and a press is killed. All is published, nothing twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from quantpress.record.manifest import Manifest, parse_manifest
from tests.support.operating import Operator

pytestmark = pytest.mark.slow

MODEL = "upstream/Tiny-Instruct"
REPO = "press/Tiny-Instruct-GGUF"
LADDER = ["Q4_0", "Q4_K_M", "Q8_0"]
#: The tiny model's Q8_0 has 39.4 MB, so no two rungs fit.
BUDGET = "45MB"


def manifest_at(operator: Operator, revision: str) -> Manifest | None:
    if not operator.api.file_exists(REPO, "quantpress.json", revision=revision):
        return None
    path = operator.api.hf_hub_download(REPO, "quantpress.json", revision=revision, cache_dir=operator.folder / "look")
    return parse_manifest(Path(path).read_bytes(), revision)


@contextmanager
def occupied(operator: Operator) -> Iterator[list[int]]:
    """Yields a list of one number. After the block, it is the most bytes that the rungs' files took at one time."""
    most, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            files = (operator.folder / "home" / "work").glob("*/gguf/*/files/*")
            sizes = []
            for file in files:
                with suppress(FileNotFoundError):
                    sizes.append(file.stat().st_size)
            most[0] = max(most[0], sum(sizes))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        over.set()
        watcher.join()


def test_a_budget_below_one_rung_is_refused_beforehand(operator: Operator, tiny_model: Path) -> None:
    operator.upload_source(MODEL, tiny_model)
    operator.write_catalog(
        [{"repo": MODEL, "formats": ["gguf"], "variants": {"gguf": LADDER}}], calibration={"samples": 2, "length": 128}
    )
    code, _, err = operator.call("run", QUANTPRESS_DISK_BUDGET="1MB")
    assert code == 1
    assert err.count("more than the disk budget of 0.00 GB: raise QUANTPRESS_DISK_BUDGET") >= len(LADDER)
    assert not operator.api.repo_exists(REPO)
    assert not (operator.folder / "home" / "sources").exists()


def test_a_killed_press_is_resumed(operator: Operator) -> None:
    """The press is killed while it makes the second wave (rungs made together). The first wave, on the Hub, stays."""
    run = operator.start_silent("run", QUANTPRESS_DISK_BUDGET=BUDGET)
    while run.poll() is None and not operator.api.repo_exists(REPO):
        time.sleep(0.05)
    while run.poll() is None and len(operator.commits(REPO)) < 2:
        time.sleep(0.05)
    assert run.poll() is None
    operator.kill(run)
    before = manifest_at(operator, "main")
    assert before is not None and 0 < len(before.entries) < len(LADDER)
    with occupied(operator) as most:
        code, _, err = operator.call("run", QUANTPRESS_DISK_BUDGET=BUDGET)
    assert code == 0, err
    assert 30_000_000 < most[0] <= 45_000_000
    after = manifest_at(operator, "main")
    assert after is not None
    assert sorted(entry.variant for entry in after.entries) == sorted(LADDER)
    for entry in before.entries:
        found = after.entry(entry.variant)
        assert found is not None
        assert found.model_copy(update={"verified": entry.verified}) == entry
    assert all(entry.verified for entry in after.entries)
    assert not list((operator.folder / "home" / "work").glob("*"))
    assert not list((operator.folder / "home").rglob("*.tmp"))


def test_every_commit_was_whole_and_added_what_no_other_did(operator: Operator) -> None:
    added: list[str] = []
    for revision in reversed(operator.commits(REPO)):
        manifest = manifest_at(operator, revision)
        if manifest is None:
            continue
        files = {file for file in operator.api.list_repo_files(REPO, revision=revision) if file.endswith(".gguf")}
        listed = [file.path for entry in manifest.published() for file in entry.artifact.files]
        assert files == {*listed, "Tiny-Instruct.imatrix.gguf"}
        added += sorted(set(listed) - set(added))
    assert sorted(added) == sorted(f"Tiny-Instruct-{rung}.gguf" for rung in LADDER)
    assert len(operator.commits(REPO)) >= 4


def test_a_rung_of_the_same_bytes_as_a_published_one_is_named_and_not_made(operator: Operator) -> None:
    """On this model, Q4_K_M already has Q8_0 embeddings, so Q4_K_L is the same file."""
    before = set(operator.api.list_repo_files(REPO))
    line = {"repo": MODEL, "formats": ["gguf"], "variants": {"gguf": [*LADDER, "Q4_K_L"]}}
    operator.write_catalog([line], calibration={"samples": 2, "length": 128})
    code, _, err = operator.call("run")
    assert code == 0, err
    assert set(operator.api.list_repo_files(REPO)) == before
    manifest = manifest_at(operator, "main")
    assert manifest is not None
    assert [(alias.variant, alias.same_as) for alias in manifest.aliases] == [("Q4_K_L", "Q4_K_M")]
    assert {step["reason"] for step in operator.plan()} == {"up to date", "same as Q4_K_M"}


def test_a_wave_is_quantized_while_the_one_before_is_measured(operator: Operator, tiny_model: Path) -> None:
    """Quantizing and measuring get two of the four threads each. The last wave is measured alone, with all four."""
    operator.upload_source("upstream/Overlap", tiny_model)
    line = {"repo": "upstream/Overlap", "formats": ["gguf"], "variants": {"gguf": ["Q4_0", "Q5_0", "Q8_0"]}}
    operator.write_catalog([line], calibration={"samples": 2, "length": 128})
    code, _, err = operator.call("run", QUANTPRESS_THREADS="4", QUANTPRESS_DISK_BUDGET="80MB")
    assert code == 0, err
    path = operator.api.hf_hub_download(
        "press/Overlap-GGUF", "quantpress.json", cache_dir=operator.folder / "look", force_download=True
    )
    manifest = parse_manifest(Path(path).read_bytes(), "Overlap")
    threads = [str(entry.evaluation.runner).rpartition(", ")[2] for entry in manifest.entries]
    assert sorted(threads) == ["2 threads", "2 threads", "4 threads"]
    assert not list((operator.folder / "home" / "work").glob("*"))
