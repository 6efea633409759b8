"""Fetching WikiText-2 from the source Hub."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from quantpress.errors import QuantpressError
from quantpress.evaluation.text import calibration_text, evaluation_text
from quantpress.evaluation.wikitext import fetch_if_reachable, fetch_wikitext
from quantpress.settings import Settings
from tests.support.wikitext import ARCHIVE, DATASET, TEST, TRAIN, archive, upload

NOWHERE = "http://127.0.0.1:9"
WHAT = r"fetching wikitext-2-raw-v1\.zip of the dataset ggml-org/ci on "


def test_it_is_fetched_once_and_kept(bare_hub: HfApi, known_archive: bytes, tmp_path: Path) -> None:
    upload(bare_hub, known_archive)

    file = fetch_wikitext(bare_hub, tmp_path)

    assert file == tmp_path / "texts" / ARCHIVE
    assert [path.name for path in (tmp_path / "texts").iterdir()] == [ARCHIVE]
    assert list((tmp_path / "scratch").iterdir()) == []
    assert fetch_wikitext(HfApi(endpoint=NOWHERE), tmp_path) == file


def test_models_are_measured_on_its_test_split(bare_hub: HfApi, known_archive: bytes, tmp_path: Path) -> None:
    upload(bare_hub, known_archive)
    text = evaluation_text(None, tmp_path / "texts", fetch_wikitext(bare_hub, tmp_path))

    assert (text.name, text.path.read_text()) == ("wikitext-2-raw-test", TEST)
    assert text.sha256 == hashlib.sha256(TEST.encode()).hexdigest()


def test_models_are_calibrated_on_its_training_split(bare_hub: HfApi, known_archive: bytes, tmp_path: Path) -> None:
    upload(bare_hub, known_archive)
    text = calibration_text(None, tmp_path / "texts", fetch_wikitext(bare_hub, tmp_path))

    assert text.name == "wikitext-2-raw-train"
    lines = text.path.read_text().splitlines(keepends=True)
    assert sorted(lines) == sorted(TRAIN.splitlines(keepends=True))


def test_the_offline_text_is_used_where_it_is_asked_for_by_name(
    bare_hub: HfApi, known_archive: bytes, tmp_path: Path
) -> None:
    upload(bare_hub, known_archive)
    fetched, texts = fetch_wikitext(bare_hub, tmp_path), tmp_path / "texts"

    assert evaluation_text(Path("pydoc-topics"), texts, fetched).path == texts / "pydoc-topics.evaluation.txt"
    assert calibration_text(Path("pydoc-topics"), texts, fetched).path == texts / "pydoc-topics.calibration.txt"


def test_a_damaged_copy_is_fetched_again(bare_hub: HfApi, known_archive: bytes, tmp_path: Path) -> None:
    upload(bare_hub, known_archive)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / ARCHIVE).write_bytes(known_archive[:20])

    assert fetch_wikitext(bare_hub, tmp_path) == tmp_path / "texts" / ARCHIVE
    assert (tmp_path / "texts" / ARCHIVE).read_bytes() == known_archive


def test_a_hub_without_it_says_so(bare_hub: HfApi, tmp_path: Path) -> None:
    assert fetch_wikitext(bare_hub, tmp_path) is None
    bare_hub.create_repo(DATASET, repo_type="dataset")
    assert fetch_wikitext(bare_hub, tmp_path) is None


def test_another_archive_is_refused_and_leaves_nothing(bare_hub: HfApi, tmp_path: Path) -> None:
    content = archive()
    upload(bare_hub, content)

    with pytest.raises(QuantpressError) as refused:
        fetch_wikitext(bare_hub, tmp_path)

    assert str(refused.value) == (
        f"wikitext-2-raw-v1.zip of the dataset ggml-org/ci on {bare_hub.endpoint} is not the archive that models are "
        f"measured on (SHA-256 {hashlib.sha256(content).hexdigest()}, not "
        "ef7edb566e3e2b2d31b29c1fdb0c89a4cc683597484c3dc2517919c615435a11): name texts of your own, or pydoc-topics, "
        "as QUANTPRESS_EVALUATION_TEXT and as the catalog's calibration text"
    )
    assert not (tmp_path / "texts").exists()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_no_other_answer_is_taken_for_a_no(bare_hub: HfApi, known_archive: bytes, tmp_path: Path) -> None:
    """A night's figures must never come from another text by accident."""
    wrong_token = HfApi(endpoint=bare_hub.endpoint, token="hf_" + "x" * 40)
    no_hub_of_ours = HfApi(endpoint=f"{bare_hub.endpoint}/some/mirror", token=False)  # 404 without an error code
    for asked in (wrong_token, no_hub_of_ours, HfApi(endpoint=NOWHERE)):
        with pytest.raises(QuantpressError, match=f"^{WHAT}{asked.endpoint}: "):
            fetch_wikitext(asked, tmp_path)

    upload(bare_hub, known_archive)
    bare_hub.update_repo_settings(DATASET, repo_type="dataset", gated="auto")
    with pytest.raises(QuantpressError, match=WHAT):
        fetch_wikitext(HfApi(endpoint=bare_hub.endpoint, token=False), tmp_path)


def test_work_that_can_do_without_a_hub_is_told_what_stands_in(bare_hub: HfApi, tmp_path: Path) -> None:
    said: list[str] = []
    for endpoint in (NOWHERE, bare_hub.endpoint):
        assert fetch_if_reachable(Settings(source_endpoint=endpoint, home=tmp_path), said.append) is None

    assert said[0].startswith(f"fetching {ARCHIVE} of the dataset {DATASET} on {NOWHERE}: ")
    assert said[0].endswith("; the offline text stands in for it")
    assert said[1] == (
        f"{bare_hub.endpoint} does not have {ARCHIVE} of the dataset {DATASET}; the offline text stands in for it"
    )
