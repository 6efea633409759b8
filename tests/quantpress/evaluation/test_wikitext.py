"""WikiText-2 from the source Hub. The real archive is on huggingface.co alone, which no test reaches: a small one of
the same form stands in, and its hash for that of the real one."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi
from typer.testing import CliRunner

from quantpress import press as stages
from quantpress.catalog import Catalog
from quantpress.catalog_file import parse_catalog
from quantpress.cli import app
from quantpress.errors import BadInput, QuantpressError
from quantpress.evaluation.job import EvaluationJob
from quantpress.evaluation.record import Evaluation
from quantpress.evaluation.text import WIKITEXT_TRAIN, Texts, calibration_text, evaluation_text
from quantpress.evaluation.wikitext import fetch_if_reachable, fetch_wikitext
from quantpress.localhub.server import RunningHub, running_hub
from quantpress.plan import ModelPlan
from quantpress.planning import plan_catalog
from quantpress.quantize import Order, quantize
from quantpress.rebuild import provide_text
from quantpress.recipe import Calibration
from quantpress.settings import Settings
from tests.quantpress import samples
from tests.quantpress.planned import CONFIG, WEIGHTS, Press, published_as, running_press

TEST = " = Robert Boulter = \n\n Robert Boulter is an English film , television and theatre actor . \n"
TRAIN = "".join(f" Sentence {number} of an article on Valkyria Chronicles . \n" for number in range(20_000))
DATASET, ARCHIVE = "ggml-org/ci", "wikitext-2-raw-v1.zip"
NOWHERE = "http://127.0.0.1:9"
WHAT = r"fetching wikitext-2-raw-v1\.zip of the dataset ggml-org/ci on "


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
def press(tmp_path: Path) -> Iterator[Press]:
    with running_press(tmp_path) as press:
        yield press


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The stand-in's archive, by its hash the right one."""
    content = archive()
    monkeypatch.setattr("quantpress.evaluation.wikitext.ARCHIVE_SHA256", hashlib.sha256(content).hexdigest())
    return content


def upload(api: HfApi, content: bytes) -> None:
    api.create_repo(DATASET, repo_type="dataset")
    api.upload_file(repo_id=DATASET, path_in_repo=ARCHIVE, path_or_fileobj=io.BytesIO(content), repo_type="dataset")


def names(texts: Texts | None) -> tuple[str, str]:
    assert texts is not None
    return texts.calibration.name, texts.evaluation.name


WIKITEXT = ("wikitext-2-raw-train", "wikitext-2-raw-test")
OFFLINE = ("pydoc-topics", "pydoc-topics")


def test_it_is_fetched_once_and_kept(api: HfApi, known: bytes, tmp_path: Path) -> None:
    upload(api, known)

    file = fetch_wikitext(api, tmp_path)

    assert file == tmp_path / "texts" / ARCHIVE
    assert [path.name for path in (tmp_path / "texts").iterdir()] == [ARCHIVE]
    assert list((tmp_path / "scratch").iterdir()) == []
    assert fetch_wikitext(HfApi(endpoint=NOWHERE), tmp_path) == file


def test_models_are_measured_on_its_test_split(api: HfApi, known: bytes, tmp_path: Path) -> None:
    upload(api, known)
    text = evaluation_text(None, tmp_path / "texts", fetch_wikitext(api, tmp_path))

    assert (text.name, text.path.read_text()) == ("wikitext-2-raw-test", TEST)
    assert text.sha256 == hashlib.sha256(TEST.encode()).hexdigest()


def test_models_are_calibrated_on_its_training_split(api: HfApi, known: bytes, tmp_path: Path) -> None:
    upload(api, known)
    text = calibration_text(None, tmp_path / "texts", fetch_wikitext(api, tmp_path))

    assert text.name == "wikitext-2-raw-train"
    lines = text.path.read_text().splitlines(keepends=True)
    assert sorted(lines) == sorted(TRAIN.splitlines(keepends=True))


def test_the_offline_text_is_used_where_it_is_asked_for_by_name(api: HfApi, known: bytes, tmp_path: Path) -> None:
    upload(api, known)
    fetched, texts = fetch_wikitext(api, tmp_path), tmp_path / "texts"

    assert evaluation_text(Path("pydoc-topics"), texts, fetched).path == texts / "pydoc-topics.evaluation.txt"
    assert calibration_text(Path("pydoc-topics"), texts, fetched).path == texts / "pydoc-topics.calibration.txt"


def test_a_damaged_copy_is_fetched_again(api: HfApi, known: bytes, tmp_path: Path) -> None:
    upload(api, known)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / ARCHIVE).write_bytes(known[:20])

    assert fetch_wikitext(api, tmp_path) == tmp_path / "texts" / ARCHIVE
    assert (tmp_path / "texts" / ARCHIVE).read_bytes() == known


def test_a_hub_without_it_says_so(api: HfApi, tmp_path: Path) -> None:
    assert fetch_wikitext(api, tmp_path) is None
    api.create_repo(DATASET, repo_type="dataset")
    assert fetch_wikitext(api, tmp_path) is None


def test_another_archive_is_refused_and_leaves_nothing(api: HfApi, tmp_path: Path) -> None:
    content = archive()
    upload(api, content)

    with pytest.raises(QuantpressError) as refused:
        fetch_wikitext(api, tmp_path)

    assert str(refused.value) == (
        f"wikitext-2-raw-v1.zip of the dataset ggml-org/ci on {api.endpoint} is not the archive that models are "
        f"measured on (SHA-256 {hashlib.sha256(content).hexdigest()}, not "
        "ef7edb566e3e2b2d31b29c1fdb0c89a4cc683597484c3dc2517919c615435a11): name texts of your own, or pydoc-topics, "
        "as QUANTPRESS_EVALUATION_TEXT and as the catalog's calibration text"
    )
    assert not (tmp_path / "texts").exists()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_no_other_answer_is_taken_for_a_no(api: HfApi, known: bytes, tmp_path: Path) -> None:
    """Figures of a night are never of another text by accident."""
    wrong_token = HfApi(endpoint=api.endpoint, token="hf_" + "x" * 40)
    no_hub_of_ours = HfApi(endpoint=f"{api.endpoint}/some/mirror", token=False)  # 404, and no code says of what
    for asked in (wrong_token, no_hub_of_ours, HfApi(endpoint=NOWHERE)):
        with pytest.raises(QuantpressError, match=f"^{WHAT}{asked.endpoint}: "):
            fetch_wikitext(asked, tmp_path)

    upload(api, known)
    api.update_repo_settings(DATASET, repo_type="dataset", gated="auto")
    with pytest.raises(QuantpressError, match=WHAT):
        fetch_wikitext(HfApi(endpoint=api.endpoint, token=False), tmp_path)


def test_work_that_can_do_without_a_hub_is_told_what_stands_in(api: HfApi, tmp_path: Path) -> None:
    said: list[str] = []
    for endpoint in (NOWHERE, api.endpoint):
        assert fetch_if_reachable(Settings(source_endpoint=endpoint, home=tmp_path), said.append) is None

    assert said[0].startswith(f"fetching {ARCHIVE} of the dataset {DATASET} on {NOWHERE}: ")
    assert said[0].endswith("; the offline text stands in for it")
    assert said[1] == (
        f"{api.endpoint} does not have {ARCHIVE} of the dataset {DATASET}; the offline text stands in for it"
    )


def test_a_plan_calibrates_and_measures_on_it(press: Press, known: bytes) -> None:
    """What was made and measured on the offline text is made anew: figures of two texts stand in no table together."""
    line: dict[str, Any] = {"repo": "up/Tiny", "variants": {"gguf": ["Q8_0", "Q4_K_M"]}}
    press.source("up/Tiny")
    (plan,) = press.plan(line)
    assert names(plan.texts) == OFFLINE
    published_as(press, "press/Tiny-GGUF", plan)
    assert press.reasons(line) == ["up to date", "new"]

    upload(press.api, known)

    (plan,) = press.plan(line)
    assert names(plan.texts) == WIKITEXT
    assert stages.bench(plan, Settings(home=press.home)).protocol.text == "wikitext-2-raw-test"
    named = line | {"calibration": {"text": "pydoc-topics"}}
    assert press.reasons(named) == ["evaluation text changed: pydoc-topics to wikitext-2-raw-test", "new"]


def test_a_model_that_was_measured_on_it_is_not_made_anew_on_the_offline_text(
    press: Press, known: bytes, tmp_path: Path
) -> None:
    """A new machine, and the dataset is gone: what is published keeps its figures."""
    line: dict[str, Any] = {"repo": "up/Tiny", "variants": {"gguf": ["Q8_0"]}}
    press.source("up/Tiny")
    upload(press.api, known)
    published_as(press, "press/Tiny-GGUF", press.plan(line)[0])
    press.api.delete_repo(DATASET, repo_type="dataset")
    assert press.reasons(line) == ["up to date"]

    elsewhere = Press(press.hub, press.api, tmp_path / "elsewhere")

    assert elsewhere.reasons(line) == [
        "blocked: it was made with WikiText-2, which https://huggingface.co does not have: upload "
        "wikitext-2-raw-v1.zip to its dataset ggml-org/ci, or set evaluation_text and the text of calibration"
    ]
    (reason,) = elsewhere.reasons(line | {"calibration": {"text": "pydoc-topics"}})
    assert reason.startswith("blocked: it was made with WikiText-2")


def test_a_press_whose_texts_are_named_asks_for_none(press: Press, tmp_path: Path) -> None:
    """The archive on this Hub is another one: whoever asked for it would be refused."""
    press.source("up/Tiny")
    upload(press.api, archive())
    line = {"repo": "up/Tiny", "formats": ["gguf"], "calibration": {"text": "pydoc-topics"}}
    catalog = parse_catalog(json.dumps({"models": [line]}), "c")

    def plan(**settings: Any) -> list[ModelPlan]:
        return plan_catalog(catalog, Settings(namespace="press", home=press.home, **settings), press.api, press.api)

    assert names(plan(evaluation_text=Path("pydoc-topics"))[0].texts) == OFFLINE
    with pytest.raises(QuantpressError, match="is not the archive that models are measured on"):
        plan()


def test_what_models_are_measured_on_is_no_text_to_calibrate_on(press: Press, tmp_path: Path) -> None:
    press.source("up/Tiny")
    mine = tmp_path / "mine.txt"
    mine.write_text("Call me Ishmael.\n")
    catalog = parse_catalog(json.dumps({"models": [{"repo": "up/Tiny", "calibration": {"text": str(mine)}}]}), "c")
    settings = Settings(namespace="press", home=press.home, evaluation_text=mine)
    with pytest.raises(BadInput, match=r"mine\.txt is what models are measured on: give another text"):
        plan_catalog(catalog, settings, press.api, press.api)


@pytest.mark.parametrize("evaluation", [{}, {"evaluation_text": Path("pydoc-topics")}])
def test_quantize_uses_it(
    api: HfApi, known: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluation: dict[str, Path]
) -> None:
    class Planned(Exception):
        pass

    def bench(plan: ModelPlan, settings: Settings) -> None:
        raise Planned(names(plan.texts))

    monkeypatch.setattr("quantpress.press.bench", bench)
    source = tmp_path / "Tiny"
    source.mkdir()
    (source / "config.json").write_text(json.dumps(CONFIG))
    (source / "model.safetensors").write_bytes(WEIGHTS)
    settings = Settings(source_endpoint=api.endpoint, home=tmp_path / "home", **evaluation)
    order = Order(str(source), "gguf", ["Q8_0"], tmp_path / "out")

    def planned() -> Any:
        with pytest.raises(Planned) as made:
            quantize(order, Catalog(models=[]), settings, lambda: api, lambda what: None)
        return made.value.args[0]

    assert planned() == OFFLINE
    upload(api, known)
    assert planned() == (WIKITEXT[0], OFFLINE[1] if evaluation else WIKITEXT[1])


def test_evaluate_uses_it(api: HfApi, known: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child that would load the model is left out: which text it is given is what is asked."""
    jobs: list[EvaluationJob] = []

    def run(module: str, job: EvaluationJob, result: type[Evaluation], folder: Path) -> Evaluation:
        jobs.append(job)
        return samples.evaluation(16.1)

    monkeypatch.setattr("quantpress.evaluation.measure.run_child", run)
    monkeypatch.setenv("QUANTPRESS_SOURCE_ENDPOINT", api.endpoint)
    monkeypatch.setenv("QUANTPRESS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Tiny").mkdir()
    (tmp_path / "Tiny" / "config.json").write_text(json.dumps(CONFIG))

    upload(api, known)
    done = CliRunner().invoke(app, ["evaluate", "Tiny", "--json"])

    assert done.exit_code == 0, done.output
    (job,) = jobs
    assert job.protocol.text == "wikitext-2-raw-test"
    assert job.text.read_text() == TEST


def test_rebuild_fetches_what_a_recipe_was_calibrated_on(api: HfApi, known: bytes, tmp_path: Path) -> None:
    upload(api, known)
    first = calibration_text(None, tmp_path / "texts", fetch_wikitext(api, tmp_path))
    recipe = Calibration(text=WIKITEXT_TRAIN, sha256=first.sha256, samples=64, length=512)
    new_machine = Settings(home=tmp_path / "new")

    found = provide_text(recipe, [], new_machine, api)

    assert (found.name, found.sha256) == (first.name, first.sha256)
    assert found.path.parent == tmp_path / "new" / "texts"
    # Whoever has the text needs no Hub.
    given = provide_text(recipe, [first.path], Settings(home=tmp_path / "third"), HfApi(endpoint=NOWHERE))
    assert given.path == first.path
