"""What a press reports of a format that stops while its next wave (variants made together) is being made.

The stages are stand-ins, because no real Hub refuses, and no real child dies, at exactly the chosen moment.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from quantizers.protocol import CalibrationText, Job, Layout, Output, Result, Variant
from quantpress.card.context import CardContext
from quantpress.catalog.schema import CalibrationLine
from quantpress.errors import ChildFailed, QuantpressError
from quantpress.evaluation.base import BaseCache, Baseline
from quantpress.evaluation.text import EvaluationText
from quantpress.machine.workspace import Workspace
from quantpress.plan.steps import FormatPlan, Step, VariantPlan
from quantpress.press.bench import Bench
from quantpress.press.events import Event, Failed
from quantpress.press.format import press_format
from quantpress.press.format_stages import PLAIN
from quantpress.press.stages import Made
from quantpress.record.shelf import Shelf
from quantpress.settings import Settings
from quantpress.source.source import Source
from tests.support import samples

REPO = "press/M-GGUF"


def planned(name: str) -> VariantPlan:
    step = Step(model="m/m", format="gguf", variant=name, repo_id=REPO, action="press", reason="new")
    return VariantPlan(
        Variant(format="gguf", name=name), samples.entry("gguf", name, bits=5, divergence=0.1).recipe, step
    )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A bench (where one model is pressed) with enough threads to make a wave while the wave before is measured."""
    text = EvaluationText("t", tmp_path / "text", "")
    return Bench(
        source=Source(samples.source(), {}, ()),
        settings=Settings(home=tmp_path),
        workspace=Workspace(tmp_path, "m/m", "a" * 40),
        calibration=text,
        amount=CalibrationLine(),
        text=text,
        protocol=samples.PROTOCOL,
        gates={},
        device="cpu",
        threads=4,
        bases=BaseCache(tmp_path / "bases", 0),
    )


def test_the_wave_that_is_made_meanwhile_is_told_of_and_no_other_is_begun(bench: Bench, tmp_path: Path) -> None:
    job = Job(
        step="prepare",
        variant=planned("Q8_0").variant,
        model_name="M",
        source=tmp_path,
        prepared=tmp_path / "prepared",
        out=tmp_path / "out",
        calibration=CalibrationText(name="t", path=tmp_path, sha256="", samples=2, length=128),
        threads=4,
        device="cpu",
    )
    begun: list[str] = []

    def quantize(bench: Bench, each: VariantPlan) -> Made:
        begun.append(each.variant.name)
        if each.variant.name == "Q5_0":
            raise ChildFailed("quantizers.job was killed by SIGKILL")
        output = Output(files=["M.gguf"], bits_per_weight=8.5, tensor_types={})
        return Made(tmp_path, Result(output=output, seconds=1.0, peak_memory_bytes=1))

    def refuse(*_: object) -> None:
        raise QuantpressError("the Hub refuses")

    stages = replace(
        PLAIN,
        calibrate=lambda bench, plan: job,
        baseline=lambda bench, plan, job, reference: reference,
        layout=lambda plan, job, budget: Layout(waves=[["Q8_0"], ["Q5_0"], ["Q4_0"]]),
        quantize=quantize,
        evaluate=lambda bench, each, made, base: samples.evaluation(16.2, 0.001),
        gate=lambda bench, each, made, evaluation, base: samples.entry("gguf", "Q8_0", bits=8.5, divergence=0.001),
        context=lambda bench, plan, coming: CardContext(repo_id=REPO, quantized_by="press"),
        read_again=lambda plan, settings: plan,
        card=refuse,
    )
    plan = FormatPlan("gguf", Shelf(REPO, {}, {}), (planned("Q8_0"), planned("Q5_0"), planned("Q4_0")), ())
    told: list[Event] = []

    with pytest.raises(QuantpressError, match="the Hub refuses"):
        for event in press_format(plan, bench, Baseline(samples.evaluation(16.1), tmp_path), (), stages):
            told.append(event)

    assert [event.line for event in told if isinstance(event, Failed)] == [
        "HuggingFaceTB/SmolLM2-135M-Instruct gguf Q5_0: quantizers.job was killed by SIGKILL"
    ]
    assert begun == ["Q8_0", "Q5_0"]
