"""How long the work on a model may take before it is said to be stuck."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ByteSize

from quantizers.protocol import Variant
from quantpress.catalog.schema import CalibrationLine, ModelLine
from quantpress.evaluation.base import BaseCache
from quantpress.evaluation.text import EvaluationText
from quantpress.machine.watch import Limits
from quantpress.machine.workspace import Workspace
from quantpress.plan.estimate import estimate_variant
from quantpress.plan.steps import ModelPlan, Step
from quantpress.press.bench import Bench
from quantpress.press.deadlines import limits, of_model
from quantpress.settings import Settings
from quantpress.source.source import Source, SourceFile
from tests.support import samples

BILLION = Source(samples.source(), {"dtype": "bfloat16"}, (SourceFile("model.safetensors", 2_000_000_000, None, None),))
Q8 = Variant(format="gguf", name="Q8_0", nominal_bits=8.5)


def bench(home: Path, settings: Settings) -> Bench:
    text = EvaluationText("t", home / "text", "")
    return Bench(
        source=BILLION,
        settings=settings,
        workspace=Workspace(home, "m/m", "a" * 40),
        calibration=text,
        amount=CalibrationLine(),
        text=text,
        protocol=samples.PROTOCOL,
        gates={},
        device="cpu",
        threads=4,
        bases=BaseCache(home / "bases", 0),
    )


@pytest.fixture(autouse=True)
def own_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUANTPRESS_THREADS", raising=False)


@pytest.mark.parametrize(
    ("variants", "hours"),
    [((), 13.09), ((Q8,), 13.58), ((Q8,) * 10, 17.95)],
    ids=["the model alone", "a variant", "a wave of ten"],
)
def test_a_child_has_twenty_times_its_estimate_and_two_hours(
    tmp_path: Path, variants: tuple[Variant, ...], hours: float
) -> None:
    """A billion weights, 104 windows of 512 tokens, 4 cores."""
    found = limits(bench(tmp_path, Settings(home=tmp_path, threads=4)), *variants)
    assert found.seconds == pytest.approx(3600 * hours, rel=1e-3)
    assert (found.memory, found.silence) == (None, 1800)


def test_the_operator_sets_both_limits(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, threads=4, deadline=0, child_memory=ByteSize(64_000_000_000))
    assert limits(bench(tmp_path, settings)) == Limits(seconds=None, memory=64_000_000_000)


def test_a_model_has_a_day_and_twenty_times_its_estimate(tmp_path: Path) -> None:
    step = Step(model="m/m", format="gguf", variant="Q8_0", repo_id="p/m", action="press", reason="new")
    step = step.model_copy(update={"estimate": estimate_variant(BILLION, Q8)})
    plan = ModelPlan(ModelLine(repo="m/m"), BILLION, None, CalibrationLine(), {}, (), (step, step))
    assert of_model(plan, Settings(home=tmp_path, threads=4)) == 86_400 + 20 * 2 * 350 / 4
    assert of_model(plan, Settings(home=tmp_path, threads=4, deadline=0)) is None
