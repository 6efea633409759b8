"""The plan that follows from both Hubs: what to do, why, in which order and within which budgets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ByteSize

from quantizers.gguf.quantizer import GGUF
from quantpress.evaluation.protocol import current_protocol
from quantpress.record.manifest import Verdict, parse_manifest
from quantpress.settings import Settings
from tests.support import samples
from tests.support.planned import CONFIG, Press, compared_as, published_as, running_press


@pytest.fixture(scope="module")
def press(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Press]:
    with running_press(tmp_path_factory.mktemp("plan")) as press:
        yield press


def test_a_model_that_nobody_pressed_is_new(press: Press) -> None:
    press.source("up/New")
    assert press.reasons("up/New", variants={"gguf": ["Q8_0", "Q4_K_M"]}) == ["new", "new"]


def test_the_default_is_the_whole_ladder(press: Press) -> None:
    press.source("up/New")
    assert len(press.reasons("up/New")) == len(GGUF().default_variants({}))


def test_what_is_published_is_up_to_date_until_an_input_changes(press: Press) -> None:
    line = {"repo": "up/Kept", "variants": {"gguf": ["Q8_0"]}}
    press.source("up/Kept")
    published_as(press, "press/Kept-GGUF", press.plan(line)[0])
    assert press.reasons(line) == ["up to date"]
    assert press.reasons(line | {"calibration": {"samples": 5}}) == ["recipe changed: calibration"]
    old = press.api.model_info("up/Kept").sha or ""
    new = press.source("up/Kept", CONFIG | {"note": "moved"})
    assert press.reasons(line) == [f"source moved: {old[:8]} to {new[:8]}; what changed is not known"]


def test_cards_that_other_templates_made_are_rendered_again(press: Press) -> None:
    line = {"repo": "up/Cards", "variants": {"gguf": ["Q8_0"]}}
    press.source("up/Cards")
    published_as(press, "press/Cards-GGUF", press.plan(line)[0])
    manifest = press.api.hf_hub_download("press/Cards-GGUF", "quantpress.json", local_dir=press.home)
    outdated = json.dumps(json.loads(Path(manifest).read_text()) | {"card": "0" * 64}).encode()
    press.put("press/Cards-GGUF", {"quantpress.json": outdated})
    compared_as(press, "press/Cards-GGUF", parse_manifest(outdated, "press/Cards-GGUF"))
    (plan,) = press.plan(line)
    assert [(step.variant, step.action, step.reason) for step in plan.steps] == [
        ("Q8_0", "keep", "up to date"),
        ("", "card", "the card's templates changed"),
    ]
    assert plan.has_work
    assert not plan.formats[0].to_make


def test_a_comparison_that_is_older_than_what_it_compares_is_made_anew(press: Press) -> None:
    line = {"repo": "up/Compared", "variants": {"gguf": ["Q8_0"]}}
    press.source("up/Compared")
    (plan,) = press.plan(line)
    assert plan.comparison is None  # nothing to compare
    published_as(press, "press/Compared-GGUF", plan)
    assert not press.plan(line)[0].has_work

    def compared() -> tuple[bool, str, str, str] | None:
        (plan,) = press.plan(line)
        assert not plan.formats[0].has_work
        step = plan.comparison
        return step and (plan.has_work, step.action, step.repo_id, step.reason)

    repo_id = "press/Compared-quantized"
    state = json.loads(Path(press.api.hf_hub_download(repo_id, "made_from.json", local_dir=press.home)).read_text())
    for changed, reason in [
        ({"manifests": {"press/Compared-GGUF": "0" * 64}}, "older than the manifest of press/Compared-GGUF"),
        ({"manifests": {}}, "older than the manifest of press/Compared-GGUF"),
        ({"templates": "0" * 64}, "the comparison's templates changed"),
        ({"collected": []}, "its collection lacks press/Compared-quantized, press/Compared-GGUF"),
        ({"collected": ["press/Compared-quantized"]}, "its collection lacks press/Compared-GGUF"),
        ({"more": 1}, "made_from.json of the comparison is not of this version"),
    ]:
        press.put(repo_id, {"made_from.json": json.dumps(state | changed).encode()})
        found = compared()
        assert found is not None and found[:3] == (True, "compare", repo_id)
        assert found[3].endswith(reason)
    press.put(repo_id, {"made_from.json": b"{}", "model.safetensors": b"by hand"})
    assert compared() == (
        False,
        "block",
        repo_id,
        f"blocked: {repo_id} was not made by quantpress (it holds weights and no quantpress.json): "
        "rename it or set another namespace",
    )
    press.api.delete_repo(repo_id)
    assert compared() == (True, "compare", repo_id, "its formats are not compared yet")


def test_a_withheld_variant_is_not_made_again(press: Press) -> None:
    line = {"repo": "up/Bad", "variants": {"gguf": ["Q8_0"]}}
    press.source("up/Bad")
    verdict = {"passed": False, "reasons": ["perplexity 999.00 is too much"]}
    (plan,) = press.plan(line)
    published_as(press, "press/Bad-GGUF", plan, status="withheld", verdict=Verdict.model_validate(verdict))
    assert press.reasons(line) == ["withheld: perplexity 999.00 is too much"]
    assert not press.plan(line)[0].has_work


def test_a_limit_that_decides_otherwise_now_is_work(press: Press) -> None:
    line: dict[str, Any] = {"repo": "up/Limits", "variants": {"gguf": ["Q8_0"]}}
    press.source("up/Limits")
    (plan,) = press.plan(line)
    far = samples.evaluation(16.2, 0.0042)
    verdict = {"passed": False, "reasons": ["mean KLD 0.0042 is above 0.003"], "max_divergence": 0.003}
    withheld: dict[str, Any] = {"status": "withheld", "verdict": Verdict.model_validate(verdict), "evaluation": far}
    published_as(press, "press/Limits-GGUF", plan, **withheld)
    assert press.reasons(line) == ["withheld: mean KLD 0.0042 is above 0.003"]
    raised = line | {"gates": {"Q8_0": {"max_divergence": 0.006, "reason": "small"}}}
    assert press.reasons(raised) == ["gate changed: the limit on the variant's mean KLD is now 0.006"]
    raised["gates"]["Q8_0"]["max_divergence"] = 0.0035
    assert press.reasons(raised) == ["withheld: mean KLD 0.0042 is above 0.003"]
    published_as(press, "press/Limits-GGUF", plan, evaluation=samples.evaluation(16.2, 0.002))
    assert press.reasons(line) == ["up to date"]
    lowered = line | {"gates": {"Q8_0": {"max_divergence": 0.001, "reason": "strict"}}}
    assert press.reasons(lowered) == ["gate changed: the limit on the variant's mean KLD is now 0.001"]


def test_a_changed_protocol_measures_again_what_is_published_and_makes_anew_what_was_withheld(press: Press) -> None:
    line: dict[str, Any] = {"repo": "up/Protocol", "variants": {"gguf": ["Q8_0"]}}
    press.source("up/Protocol")
    (plan,) = press.plan(line)
    assert plan.source is not None
    assert plan.texts is not None
    now = current_protocol(plan.source, Settings(home=press.home), plan.texts.evaluation)

    def planned(**changes: Any) -> tuple[str, str]:
        measured = samples.evaluation(16.2, 0.002, protocol=now.model_copy(update=changes))
        published_as(press, "press/Protocol-GGUF", plan, evaluation=measured)
        (step,) = press.plan(line)[0].steps
        return step.action, step.reason

    assert planned() == ("keep", "up to date")
    assert planned(version=1) == ("evaluate", "protocol changed: version 1 to 2")
    assert planned(text="custom-eeeeeeee", text_sha256="e" * 64) == (
        "evaluate",
        "evaluation text changed: custom-eeeeeeee to pydoc-topics",
    )
    assert planned(text_sha256="e" * 64)[1].startswith("evaluation text changed: eeeeeeee to ")
    assert planned(windows=10) == ("evaluate", "windows changed: 10 of 512 tokens to 64 of 512")
    assert [each.variant.name for each in press.plan(line)[0].formats[0].to_evaluate] == ["Q8_0"]

    verdict = Verdict(passed=False, reasons=["too far"])
    old = samples.evaluation(16.2, 0.002, protocol=now.model_copy(update={"version": 1}))
    published_as(press, "press/Protocol-GGUF", plan, evaluation=old, status="withheld", verdict=verdict)
    assert press.reasons(line) == [
        "protocol changed: version 1 to 2; the variant was withheld, so its files are made again"
    ]


def test_higher_priority_comes_first(press: Press) -> None:
    press.source("up/New")
    press.source("up/Second")
    plans = press.plan("up/New", {"repo": "up/Second", "priority": 5})
    assert [plan.line.repo for plan in plans] == ["up/Second", "up/New"]


def test_variants_beyond_the_upload_budget_are_left_to_a_later_run_in_the_plans_order(press: Press) -> None:
    press.source("up/first")
    press.source("up/second")
    models = [{"repo": "up/first", "priority": 1}, "up/second"]
    variants = {"gguf": ["Q8_0", "Q4_0"]}
    first, second = press.plan(*models, variants=variants)
    sizes = [step.estimate.upload for each in (first, second) for step in each.steps if step.estimate is not None]
    assert len(sizes) == 4 and first.upload is None
    first, second = press.plan(*models, variants=variants, upload_budget=sum(sizes[:2]) + sizes[3])
    assert [(step.variant, step.action) for step in first.steps] == [("Q8_0", "press"), ("Q4_0", "press")]
    assert [(step.variant, step.action) for step in second.steps] == [("Q4_0", "press"), ("Q8_0", "defer")]
    assert second.steps[1].reason == (
        "about 0.00 GB more than the upload budget of 0.00 GB a run: "
        "left to a later run, or raise QUANTPRESS_UPLOAD_BUDGET"
    )
    assert (second.deferred, second.blocked) == ([second.steps[1]], [])
    assert (first.upload, second.upload) == (sum(sizes[:2]), sizes[3])


def test_without_a_disk_budget_variants_take_nine_tenths_of_what_is_free(press: Press) -> None:
    press.source("up/roomy")
    (plan,) = press.plan("up/roomy", variants={"gguf": ["Q8_0", "Q4_0"]})
    assert plan.source is not None
    large, small = (step.estimate.upload for step in plan.steps if step.estimate is not None)
    free = Settings(home=press.home)
    beside = plan.disk_needed(free) - large - small

    roomy, tight = plan.within_disk(free, beside + 1_000_000), plan.within_disk(free, beside + large - 1)

    assert roomy.disk_budget == 900_000
    assert plan.disk_needed(roomy) == beside + large + small
    assert tight.disk_budget == large
    assert plan.disk_needed(tight) == beside + large
    named = Settings(home=press.home, disk_budget=ByteSize(7))
    assert plan.within_disk(named, 10**12) == named


def test_a_variant_that_no_run_may_upload_is_blocked(press: Press) -> None:
    press.source("up/first")
    (plan,) = press.plan({"repo": "up/first", "variants": {"gguf": ["Q8_0"]}}, upload_budget=1)
    assert (plan.has_work, plan.deferred, [step.action for step in plan.blocked]) == (False, [], ["block"])
    assert plan.blocked[0].reason.endswith(" a run: no run can upload it: raise QUANTPRESS_UPLOAD_BUDGET")


def test_files_that_clients_mistake_for_another_rung_are_made_again(press: Press) -> None:
    line = {"repo": "up/tiny-Q4_K_M-merge", "variants": {"gguf": ["IQ4_XS"]}}
    press.source("up/tiny-Q4_K_M-merge")
    plan = press.plan(line)[0]

    def published(name: str) -> list[str]:
        artifact = samples.entry("gguf", "IQ4_XS", bits=4.5, divergence=0.03, files=[name]).artifact
        published_as(press, "press/tiny-Q4_K_M-merge-GGUF", plan, artifact=artifact)
        return press.reasons(line)

    assert published("tiny-Q4_K_M-merge-IQ4_XS.gguf") == [
        "clients find a tag in tiny-Q4_K_M-merge: its file is made again as tiny-Q4-K-M-merge-IQ4_XS.gguf"
    ]
    assert published("tiny-Q4-K-M-merge-IQ4_XS.gguf") == ["up to date"]
