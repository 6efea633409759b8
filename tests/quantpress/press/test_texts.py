"""Which texts a plan, `quantize`, `evaluate` and `rebuild` use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi
from typer.testing import CliRunner

from quantpress.catalog.reader import parse_catalog
from quantpress.catalog.schema import Catalog
from quantpress.cli.app import app
from quantpress.errors import BadInput, QuantpressError
from quantpress.evaluation.job import EvaluationJob
from quantpress.evaluation.text import WIKITEXT_TRAIN, Texts, calibration_text
from quantpress.evaluation.wikitext import fetch_wikitext
from quantpress.hub.hubs import Hubs
from quantpress.machine.watch import Limits
from quantpress.plan.make import plan_catalog
from quantpress.plan.steps import ModelPlan
from quantpress.press.bench import Bench
from quantpress.press.local import Order, quantize
from quantpress.record.measurement import Evaluation
from quantpress.record.recipe import Calibration
from quantpress.settings import Settings
from quantpress.upkeep.rebuild import provide_text
from tests.support import samples
from tests.support.planned import CONFIG, WEIGHTS, Press, published_as, running_press
from tests.support.wikitext import DATASET, TEST, archive, upload

NOWHERE = "http://127.0.0.1:9"
WIKITEXT = ("wikitext-2-raw-train", "wikitext-2-raw-test")
OFFLINE = ("pydoc-topics", "pydoc-topics")


@pytest.fixture
def press(tmp_path: Path) -> Iterator[Press]:
    with running_press(tmp_path) as press:
        yield press


def names(texts: Texts | None) -> tuple[str, str]:
    assert texts is not None
    return texts.calibration.name, texts.evaluation.name


def test_a_plan_calibrates_and_measures_on_it(press: Press, known_archive: bytes) -> None:
    """Work on the offline text is done anew, because figures of two texts must not stand in one table."""
    line: dict[str, Any] = {"repo": "up/Tiny", "variants": {"gguf": ["Q8_0", "Q4_K_M"]}}
    press.source("up/Tiny")
    (plan,) = press.plan(line)
    assert names(plan.texts) == OFFLINE
    published_as(press, "press/Tiny-GGUF", plan)
    assert press.reasons(line) == ["up to date", "new"]

    upload(press.api, known_archive)

    (plan,) = press.plan(line)
    assert names(plan.texts) == WIKITEXT
    assert Bench.of(plan, Settings(home=press.home)).protocol.text == "wikitext-2-raw-test"
    named = line | {"calibration": {"text": "pydoc-topics"}}
    assert press.reasons(named) == ["evaluation text changed: pydoc-topics to wikitext-2-raw-test", "new"]


def test_a_model_that_was_measured_on_it_is_not_made_anew_on_the_offline_text(
    press: Press, known_archive: bytes, tmp_path: Path
) -> None:
    """On a new machine, with the dataset gone, what is published keeps its figures."""
    line: dict[str, Any] = {"repo": "up/Tiny", "variants": {"gguf": ["Q8_0"]}}
    press.source("up/Tiny")
    upload(press.api, known_archive)
    published_as(press, "press/Tiny-GGUF", press.plan(line)[0])
    press.api.delete_repo(DATASET, repo_type="dataset")
    assert press.reasons(line) == ["up to date"]

    elsewhere = Press(press.hub, press.api, tmp_path / "elsewhere")

    assert elsewhere.reasons(line) == [
        "blocked: its variants were made with WikiText-2, which https://huggingface.co does not have: upload "
        "wikitext-2-raw-v1.zip to the dataset ggml-org/ci there, or set evaluation_text and the calibration's text"
    ]
    (reason,) = elsewhere.reasons(line | {"calibration": {"text": "pydoc-topics"}})
    assert reason.startswith("blocked: its variants were made with WikiText-2")


def test_a_press_whose_texts_are_named_asks_for_none(press: Press) -> None:
    """The archive on this Hub is not the real one. A press that asked for it would be refused."""
    press.source("up/Tiny")
    upload(press.api, archive())
    line = {"repo": "up/Tiny", "formats": ["gguf"], "calibration": {"text": "pydoc-topics"}}
    catalog = parse_catalog(json.dumps({"models": [line]}), "c")

    def plan(**settings: Any) -> list[ModelPlan]:
        return plan_catalog(
            catalog, Settings(namespace="press", home=press.home, **settings), Hubs(press.api, press.api)
        )

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
        plan_catalog(catalog, settings, Hubs(press.api, press.api))


@pytest.mark.parametrize("evaluation", [{}, {"evaluation_text": Path("pydoc-topics")}])
def test_quantize_uses_it(
    bare_hub: HfApi,
    known_archive: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    evaluation: dict[str, Path],
) -> None:
    """The test stops the command where the work would begin, because the stand-in has not one window to measure on."""

    class Planned(Exception):
        pass

    def bench(plan: ModelPlan, settings: Settings) -> None:
        raise Planned(names(plan.texts))

    monkeypatch.setattr("quantpress.press.bench.Bench.of", bench)
    source = tmp_path / "Tiny"
    source.mkdir()
    (source / "config.json").write_text(json.dumps(CONFIG))
    (source / "model.safetensors").write_bytes(WEIGHTS)
    settings = Settings(source_endpoint=bare_hub.endpoint, home=tmp_path / "home", **evaluation)
    order = Order(str(source), "gguf", ["Q8_0"], tmp_path / "out")

    def planned() -> Any:
        with pytest.raises(Planned) as made:
            quantize(order, Catalog(models=[]), settings, lambda: bare_hub, lambda what: None)
        return made.value.args[0]

    assert planned() == OFFLINE
    upload(bare_hub, known_archive)
    assert planned() == (WIKITEXT[0], OFFLINE[1] if evaluation else WIKITEXT[1])


def test_evaluate_uses_it(
    bare_hub: HfApi, known_archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in has not one window, so no child can measure on it. The test checks which text a child is given."""
    jobs: list[EvaluationJob] = []

    def run(module: str, job: EvaluationJob, result: type[Evaluation], folder: Path, limits: Limits) -> Evaluation:
        jobs.append(job)
        return samples.evaluation(16.1)

    monkeypatch.setattr("quantpress.evaluation.measure.run_child", run)
    monkeypatch.setenv("QUANTPRESS_SOURCE_ENDPOINT", bare_hub.endpoint)
    monkeypatch.setenv("QUANTPRESS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Tiny").mkdir()
    (tmp_path / "Tiny" / "config.json").write_text(json.dumps(CONFIG))

    upload(bare_hub, known_archive)
    done = CliRunner().invoke(app, ["evaluate", "Tiny", "--json"])

    assert done.exit_code == 0, done.output
    (job,) = jobs
    assert job.protocol.text == "wikitext-2-raw-test"
    assert job.text.read_text() == TEST


def test_rebuild_fetches_what_a_recipe_was_calibrated_on(bare_hub: HfApi, known_archive: bytes, tmp_path: Path) -> None:
    upload(bare_hub, known_archive)
    first = calibration_text(None, tmp_path / "texts", fetch_wikitext(bare_hub, tmp_path))
    recipe = Calibration(text=WIKITEXT_TRAIN, sha256=first.sha256, samples=64, length=512)
    new_machine = Settings(home=tmp_path / "new")

    found = provide_text(recipe, [], new_machine, bare_hub)

    assert (found.name, found.sha256) == (first.name, first.sha256)
    assert found.path.parent == tmp_path / "new" / "texts"
    # Whoever has the text needs no Hub.
    given = provide_text(recipe, [first.path], Settings(home=tmp_path / "third"), HfApi(endpoint=NOWHERE))
    assert given.path == first.path
