"""WikiText-2 from the source Hub. The real archive is on huggingface.co alone, which no test reaches: a small one of
the same form stands in, and its hash for that of the real one."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi
from hypothesis import assume, given
from hypothesis import strategies as st

from quantpress.errors import QuantpressError
from quantpress.evaluation.text import calibration_text, evaluation_text, spread
from quantpress.evaluation.wikitext import fetch_if_reachable, fetch_wikitext
from quantpress.localhub.server import RunningHub, running_hub
from quantpress.rebuild import find_text
from quantpress.recipe import Calibration
from quantpress.settings import Settings
from tests.quantpress.planned import published_as, running_press

TEST = " = Robert Boulter = \n\n Robert Boulter is an English film , television and theatre actor . \n"
TRAIN = "".join(f" Sentence {number} of an article on Valkyria Chronicles . \n" for number in range(20_000))
DATASET, ARCHIVE = "ggml-org/ci", "wikitext-2-raw-v1.zip"
NOWHERE = "http://127.0.0.1:9"


def archive() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("wikitext-2-raw/wiki.test.raw", TEST)
        file.writestr("wikitext-2-raw/wiki.train.raw", TRAIN)
    return content.getvalue()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with running_hub(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture
def api(hub: RunningHub) -> Iterator[HfApi]:
    """A Hub without the dataset, before and after the test."""
    client = HfApi(endpoint=hub.endpoint, token=hub.create_token("press", "write"))
    yield client
    client.delete_repo(DATASET, repo_type="dataset", missing_ok=True)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The stand-in's archive, by its hash the right one."""
    content = archive()
    monkeypatch.setattr("quantpress.evaluation.wikitext.ARCHIVE_SHA256", hashlib.sha256(content).hexdigest())
    return content


def upload(api: HfApi, content: bytes) -> None:
    api.create_repo(DATASET, repo_type="dataset")
    api.upload_file(repo_id=DATASET, path_in_repo=ARCHIVE, path_or_fileobj=content, repo_type="dataset")


def test_it_is_fetched_once_and_measured_on(api: HfApi, known: bytes, tmp_path: Path) -> None:
    upload(api, known)

    file = fetch_wikitext(api, tmp_path)

    assert file == tmp_path / "texts" / ARCHIVE
    assert [path.name for path in (tmp_path / "texts").iterdir()] == [ARCHIVE]
    assert list((tmp_path / "scratch").iterdir()) == []
    text = evaluation_text(None, tmp_path / "texts")
    assert (text.name, text.path.read_text()) == ("wikitext-2-raw-test", TEST)
    assert text.sha256 == hashlib.sha256(TEST.encode()).hexdigest()
    assert fetch_wikitext(HfApi(endpoint=NOWHERE), tmp_path) == file


def test_models_are_calibrated_on_its_training_split(api: HfApi, known: bytes, tmp_path: Path) -> None:
    upload(api, known)
    fetch_wikitext(api, tmp_path)

    text = calibration_text(None, tmp_path / "texts")

    assert text.name == "wikitext-2-raw-train"
    lines = text.path.read_text().splitlines(keepends=True)
    assert sorted(lines) == sorted(TRAIN.splitlines(keepends=True))
    assert calibration_text(None, tmp_path / "texts") == text


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_every_beginning_of_what_is_calibrated_on_is_spread_over_the_split(share: float) -> None:
    """llama-imatrix reads so far and no further. Passages of 4,000 characters have some 76 of these lines."""
    lines = spread(TRAIN).splitlines()
    read = sorted(int(line.split()[1]) for line in lines[: int(share * len(lines))])
    largest_gap = max(later - earlier for earlier, later in pairwise([0, *read, 20_000]))
    assert largest_gap < 3 * 76 / share


@given(st.text(alphabet="ab\n", max_size=30_000), st.integers(1, 40))
def test_spreading_loses_nothing_of_a_text_and_doubles_nothing(piece: str, times: int) -> None:
    text = piece * times
    assume(len(text) < 512 * 4_000)
    assert sorted(spread(text)) == sorted(text)


def test_what_a_recipe_was_calibrated_on_is_found_again(api: HfApi, known: bytes, tmp_path: Path) -> None:
    upload(api, known)
    fetch_wikitext(api, tmp_path)

    for setting in (None, Path("pydoc-topics")):
        text = calibration_text(setting, tmp_path / "texts")
        recipe = Calibration(text=text.name, sha256=text.sha256, samples=64, length=512)
        assert find_text(recipe, [], tmp_path / "texts") == text


def test_python_s_documentation_is_used_alone_where_it_is_asked_for_by_name(
    api: HfApi, known: bytes, tmp_path: Path
) -> None:
    upload(api, known)
    fetch_wikitext(api, tmp_path)

    texts = tmp_path / "texts"
    text = evaluation_text(Path("pydoc-topics"), texts)
    assert (text.name, text.path) == ("pydoc-topics", texts / "pydoc-topics.evaluation.txt")
    assert calibration_text(Path("pydoc-topics"), texts).path == texts / "pydoc-topics.calibration.txt"


def test_a_damaged_copy_is_fetched_again(api: HfApi, known: bytes, tmp_path: Path) -> None:
    upload(api, known)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / ARCHIVE).write_bytes(known[:20])
    assert evaluation_text(None, tmp_path / "texts").name == "pydoc-topics"

    assert fetch_wikitext(api, tmp_path) == tmp_path / "texts" / ARCHIVE
    assert (tmp_path / "texts" / ARCHIVE).read_bytes() == known


def test_a_hub_without_it_leaves_the_offline_text(api: HfApi, tmp_path: Path) -> None:
    assert fetch_wikitext(api, tmp_path) is None
    api.create_repo(DATASET, repo_type="dataset")
    assert fetch_wikitext(api, tmp_path) is None
    assert evaluation_text(None, tmp_path / "texts").name == "pydoc-topics"


def test_another_archive_is_refused_and_leaves_nothing(api: HfApi, tmp_path: Path) -> None:
    content = archive()
    upload(api, content)

    with pytest.raises(QuantpressError) as refused:
        fetch_wikitext(api, tmp_path)

    assert str(refused.value) == (
        f"wikitext-2-raw-v1.zip of the dataset ggml-org/ci on {api.endpoint} is not the archive that models are "
        f"measured on (SHA-256 {hashlib.sha256(content).hexdigest()}, not "
        "ef7edb566e3e2b2d31b29c1fdb0c89a4cc683597484c3dc2517919c615435a11): "
        "give wiki.test.raw with QUANTPRESS_EVALUATION_TEXT"
    )
    assert not (tmp_path / "texts").exists()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_gated_dataset_is_no_reason_for_another_text(api: HfApi, known: bytes, tmp_path: Path) -> None:
    """It is there: figures of another text would be a surprise."""
    upload(api, known)
    api.update_repo_settings(DATASET, repo_type="dataset", gated="auto")

    with pytest.raises(QuantpressError, match=r"fetching wikitext-2-raw-v1\.zip of the dataset ggml-org/ci on http"):
        fetch_wikitext(HfApi(endpoint=api.endpoint, token=False), tmp_path)


def test_what_cannot_be_reached_ends_a_press_and_not_work_on_this_machine(tmp_path: Path) -> None:
    what = f"fetching wikitext-2-raw-v1.zip of the dataset ggml-org/ci on {NOWHERE}: "
    with pytest.raises(QuantpressError, match=f"^{what}"):
        fetch_wikitext(HfApi(endpoint=NOWHERE), tmp_path)

    said: list[str] = []
    fetch_if_reachable(Settings(source_endpoint=NOWHERE, home=tmp_path), said.append)

    (line,) = said
    assert line.startswith(what)
    assert line.endswith("; Python's documentation stands in for it, and its figures are not WikiText's")


def test_a_plan_measures_and_calibrates_on_it(known: bytes, tmp_path: Path) -> None:
    """What was made and measured before is made anew: figures of two texts do not stand in one table."""
    line: dict[str, Any] = {"repo": "up/Tiny", "variants": {"gguf": ["Q8_0", "Q4_K_M"]}}
    named = line | {"calibration": {"text": "pydoc-topics"}}
    with running_press(tmp_path) as press:
        press.source("up/Tiny")
        published_as(press, "press/Tiny-GGUF", press.plan(line)[0])
        assert press.reasons(line) == ["up to date", "new"]

        upload(press.api, known)

        assert press.reasons(named) == ["evaluation text changed: pydoc-topics to wikitext-2-raw-test", "new"]
        (plan,) = press.plan(line)
        assert plan.calibration is not None
        assert plan.calibration.name == "wikitext-2-raw-train"
        # The same archive for every model: it is not asked for again.
        press.api.delete_repo(DATASET, repo_type="dataset")
        assert press.reasons(named) == ["evaluation text changed: pydoc-topics to wikitext-2-raw-test", "new"]
