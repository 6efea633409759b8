"""What an operator reads of a plan and of a run, with work and without."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantizers.protocol import Variant
from quantpress.catalog.schema import CalibrationLine, ModelLine
from quantpress.cli.tables import print_plan, print_results
from quantpress.plan.decide import Action
from quantpress.plan.estimate import Estimate, estimate_variant
from quantpress.plan.steps import FormatPlan, ModelPlan, Step, VariantPlan
from quantpress.record.report import ModelReport, report_entry
from quantpress.record.shelf import Shelf
from quantpress.settings import Settings
from quantpress.source.source import Source, SourceFile
from tests.support import samples

MODEL, REPO = "up/M", "press/M-GGUF"
SOURCE = Source(
    samples.source(), {"dtype": "float16", "vocab_size": 100}, (SourceFile("m.safetensors", 2_000_000, None, ""),)
)
VARIANT = Variant(format="gguf", name="Q8_0", nominal_bits=8.0)
SETTINGS = Settings(namespace="press", home=Path("home"), windows=2, threads=2)


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def step(action: Action, variant: str = "Q8_0", estimate: Estimate | None = None) -> Step:
    return Step(
        model=MODEL, format="gguf", variant=variant, repo_id=REPO, action=action, reason="why", estimate=estimate
    )


def planned(*actions: Action) -> ModelPlan:
    """A plan with one step per action. Each step is for the comparison, a repository's cards, or a variant."""
    variants = [action for action in actions if action not in ("card", "compare", "block", "skip")]
    estimate = estimate_variant(SOURCE, VARIANT)
    recipe = samples.entry("gguf", "Q8_0", bits=8.0, divergence=0.004).recipe
    format_plan = FormatPlan(
        "gguf",
        Shelf(REPO, {}, {}),
        tuple(
            VariantPlan(VARIANT, recipe, step(action, estimate=estimate if action in ("press", "refresh") else None))
            for action in variants
        ),
        tuple(step("block") for action in actions if action == "block"),
        card=step("card", "") if "card" in actions else None,
    )
    return ModelPlan(
        line=ModelLine(repo=MODEL),
        source=SOURCE,
        texts=None,
        amount=CalibrationLine(),
        gates={},
        formats=(format_plan,),
        other_steps=tuple(step("skip", "") for action in actions if action == "skip"),
        comparison=step("compare", "") if "compare" in actions else None,
    )


def shown(capsys: pytest.CaptureFixture[str], *actions: Action) -> list[str]:
    print_plan([planned(*actions)], [], None, SETTINGS)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("action", ["evaluate", "verify", "card", "compare"])
def test_a_plan_without_quantizing_is_work(action: Action, capsys: pytest.CaptureFixture[str]) -> None:
    *table, last = shown(capsys, action, "keep")
    assert last == f"To do: 1 {action}."
    (row,) = [line for line in table if action in line]
    assert row.split()[1] == action


@pytest.mark.parametrize("action", ["press", "refresh"])
def test_a_plan_that_makes_variants_says_what_they_cost(action: Action, capsys: pytest.CaptureFixture[str]) -> None:
    *_, work, cost = shown(capsys, action)
    assert work == f"To do: 1 {action}."
    assert cost.startswith("1 variants to make: about 0 min on 2 cores, upload 1.0 MB, disk 5.2 MB, memory 4.0 MB.")


@pytest.mark.parametrize(
    ("action", "disk"), [("press", 5_204_000), ("evaluate", 5_204_000), ("verify", 0), ("card", 0), ("keep", 0)]
)
def test_disk_is_needed_to_measure_again_what_is_published(action: Action, disk: int) -> None:
    """Source and unquantized GGUF take 2 MB each, the variant 1 MB. Log-probabilities of two engines come on top."""
    assert planned(action).disk_needed(SETTINGS) == disk


def test_actions_are_counted_in_the_order_of_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert "To do: 2 press, 1 evaluate, 1 card, 1 compare." in shown(
        capsys, "compare", "card", "evaluate", "press", "keep", "press"
    )


@pytest.mark.parametrize("action", ["keep", "skip", "block"])
def test_a_plan_that_changes_nothing_is_no_work(action: Action, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, action)[-1] == "Nothing to do."


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (ModelReport(model=MODEL), "Nothing to do.\n"),
        (ModelReport(model=MODEL, failures=["no"]), "Nothing was made.\n"),
        (ModelReport(model=MODEL, committed=[f"cards of {REPO}"]), "Committed: cards of press/M-GGUF\n"),
        (
            ModelReport(model=MODEL, committed=["comparison press/M-quantized"], failures=["no"]),
            "Committed: comparison press/M-quantized\n",
        ),
    ],
)
def test_a_run_says_what_it_committed(report: ModelReport, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_results([report], SETTINGS)
    assert capsys.readouterr().out == expected


def test_a_run_says_why_a_variant_is_withheld(capsys: pytest.CaptureFixture[str]) -> None:
    entry = samples.entry("gguf", "Q2_K", bits=5.1, divergence=0.4, withheld="mean KLD 0.4 is above the limit of 0.3")
    row = report_entry(MODEL, REPO, entry)

    print_results([ModelReport(model=MODEL, variants=[row])], SETTINGS)

    assert "Q2_K: withheld: mean KLD 0.4 is above the limit of 0.3" in capsys.readouterr().out.splitlines()
    assert row.model_dump(mode="json")["reasons"] == ["mean KLD 0.4 is above the limit of 0.3"]
