"""What the plan refuses, and its reasons: sources, variants, and repos or branches that somebody else made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from quantpress.catalog.reader import parse_catalog
from quantpress.errors import BadInput, QuantpressError
from quantpress.hub.hubs import Hubs
from quantpress.plan.make import plan_catalog
from quantpress.settings import Settings
from tests.support.planned import CONFIG, WEIGHTS, Press, published_as, running_press


@pytest.fixture(scope="module")
def press(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Press]:
    with running_press(tmp_path_factory.mktemp("refusals")) as press:
        yield press


def test_skipped_with_its_reason(press: Press) -> None:
    assert press.reasons({"repo": "up/Nowhere", "skip": "see its issue 7"}) == ["skipped: see its issue 7"]


def test_a_group_size_that_does_not_divide_is_refused_in_the_plan(press: Press) -> None:
    press.source("up/Widths")
    line = {"repo": "up/Widths", "formats": ["gptq"], "variants": {"gptq": ["gptq-4bit-128g-actorder_True"]}}
    (reason,) = press.reasons(line)
    assert reason.startswith("blocked: ")
    assert "576" in reason and "64" in reason


def test_what_no_library_or_machine_here_can_make_is_blocked(
    press: Press, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTPRESS_DEVICE", "cpu")
    monkeypatch.setenv("QUANTPRESS_CACHE", str(tmp_path))
    press.source("up/Strange", {**CONFIG, "model_type": "strange"})
    press.source("up/Arcee", {**CONFIG, "model_type": "arcee"})
    press.source("up/Known")

    assert press.reasons("up/Strange", formats=["gguf", "exl3", "torchao"]) == [
        "blocked: transformers 5.17.0 does not know the model type 'strange', so the unquantized model cannot be "
        "measured: skip the model in the catalog until transformers knows it"
    ]
    assert press.reasons("up/Arcee", formats=["gptq"]) == ["blocked: GPTQModel does not know the architecture 'arcee'"]
    assert press.reasons({"repo": "up/Known", "backends": {"gptq": "auto-gptq"}}, formats=["gptq"]) == [
        "blocked: needs a CUDA runner"
    ]
    assert press.reasons("up/Known", formats=["awq"], backends={"awq": "autoawq"}) == [
        "blocked: the archived libraries are not installed: run `quantpress toolchain install archived-libraries`"
    ]


def test_a_model_that_is_no_language_model_is_blocked_by_name(press: Press) -> None:
    press.source("up/Reward", CONFIG | {"architectures": ["LlamaForSequenceClassification"]})
    press.source("up/Embedding", **{"modules.json": b"[]"})
    assert press.reasons("up/Reward", formats=["gguf", "gptq"]) == [
        "blocked: LlamaForSequenceClassification is a classifier, and only language models are made: leave the model "
        "out of the catalog"
    ]
    assert press.reasons("up/Embedding") == [
        "blocked: its modules.json makes it an embedding model, and only language models are made: leave the model out "
        "of the catalog"
    ]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"config.json": b"{}", "pytorch_model.bin": b"x"}, "blocked: no safetensors: pickle checkpoints are refused"),
        ({"model.safetensors": WEIGHTS}, "blocked: no config.json: not a transformers model"),
        ({"config.json": b"[1]", "model.safetensors": WEIGHTS}, "blocked: its config.json is not a JSON object"),
        ({"config.json": b"{", "model.safetensors": WEIGHTS}, "blocked: its config.json is not JSON"),
        (
            {"config.json": b'{"auto_map": {"AutoModel": "x.Y"}}', "model.safetensors": WEIGHTS},
            "blocked: its config.json has an auto_map: code from model repositories is never run",
        ),
        (
            {"config.json": b"{}", "sub/model.safetensors": WEIGHTS},
            "blocked: no safetensors: pickle checkpoints are refused",
        ),
    ],
)
def test_sources_that_are_refused(press: Press, files: dict[str, bytes], reason: str) -> None:
    name = f"up/R{abs(hash(reason + str(sorted(files)))) % 10**8}"
    press.put(name, files)
    (said,) = press.reasons(name)
    assert said.startswith(reason)


def test_a_missing_revision_is_named(press: Press) -> None:
    press.source("up/New")
    assert press.reasons({"repo": "up/New", "revision": "v9"}) == ["blocked: not found: up/New has no revision 'v9'"]


def test_only_must_be_in_the_catalog(press: Press) -> None:
    with pytest.raises(BadInput, match=r"up/Nwe is not in the catalog; did you mean 'up/New'\?"):
        press.plan("up/New", only="up/Nwe")


def test_without_a_namespace_nothing_is_planned(press: Press) -> None:
    with pytest.raises(BadInput, match="no namespace to publish under: set QUANTPRESS_NAMESPACE"):
        press.plan("up/New", namespace="")


def test_a_manifest_that_is_none_blocks_its_format_alone(press: Press) -> None:
    press.source("up/Edited")
    press.source("up/New")
    press.put("press/Edited-GGUF", {"quantpress.json": b'{"schema_version": 99}'})
    variants = {"gguf": ["Q8_0"], "gptq": ["gptq-4bit-32g-actorder_True"]}
    edited, new = press.plan("up/Edited", "up/New", formats=["gguf", "gptq"], variants=variants)
    steps = [(step.format, step.variant, step.action) for step in edited.steps]
    assert steps == [("gptq", "gptq-4bit-32g-actorder_True", "press"), ("gguf", "", "block")]
    assert edited.steps[1].reason.startswith(
        "blocked: press/Edited-GGUF@main: quantpress.json is not a manifest of this version (schema_version: "
    )
    assert {step.action for step in new.steps} == {"press"}


def test_a_repo_that_is_closed_to_the_token_blocks_its_format_alone(press: Press) -> None:
    press.source("up/Closed")
    published_as(press, "press/Closed-GGUF", press.plan({"repo": "up/Closed", "variants": {"gguf": ["Q8_0"]}})[0])
    press.api.update_repo_settings("press/Closed-GGUF", gated="manual")
    stranger = replace(press, api=HfApi(endpoint=press.api.endpoint, token=press.hub.create_token("ann", "read")))
    assert stranger.reasons("up/Closed") == [
        "blocked: press/Closed-GGUF@main is gated and closed to this token: give one that may write to it"
    ]


def test_a_hub_that_does_not_answer_stops_the_plan(press: Press) -> None:
    press.source("up/New")
    nowhere = HfApi(endpoint="http://127.0.0.1:9", token=False)
    catalog = parse_catalog(json.dumps({"models": ["up/New"]}), "c")
    with pytest.raises(QuantpressError, match=r"^reading press/New-GGUF on http://127\.0\.0\.1:9: "):
        plan_catalog(catalog, Settings(namespace="press", home=press.home), Hubs(press.api, nowhere))


@pytest.mark.parametrize("path", ["Mine-Q8_0.gguf", "old/model.SAFETENSORS", "pytorch_model.bin"])
def test_a_repo_that_somebody_else_made_is_left_alone(press: Press, path: str) -> None:
    press.source("up/Mine")
    head = press.put("press/Mine-GGUF", {path: b"by hand"})
    (plan,) = press.plan("up/Mine")
    (step,) = plan.steps
    assert (step.action, step.repo_id, step.variant) == ("block", "press/Mine-GGUF", "")
    assert step.reason == (
        "blocked: press/Mine-GGUF was not made by quantpress (it holds weights and no quantpress.json): "
        "rename it or set another namespace"
    )
    assert not plan.has_work
    assert press.api.model_info("press/Mine-GGUF").sha == head
    press.api.delete_repo("press/Mine-GGUF")


def test_a_repo_without_weights_may_be_filled(press: Press) -> None:
    press.source("up/Begun")
    press.put("press/Begun-GGUF", {"README.md": b"soon"})
    assert press.reasons("up/Begun", variants={"gguf": ["Q8_0"]}) == ["new"]


def test_a_branch_that_somebody_else_made_is_left_alone(press: Press) -> None:
    press.source("up/Branched")
    taken, free = "gptq-4bit-32g-actorder_True", "gptq-4bit-64g-actorder_True"
    repo_id = "press/Branched-GPTQ"
    press.put(repo_id, {"README.md": b"soon"})
    for branch in (taken, "fp16"):
        press.api.create_branch(repo_id, branch=branch)
        weights = [CommitOperationAdd("model.safetensors", b"by hand")]
        press.api.create_commit(repo_id, weights, commit_message="mine", revision=branch)
    variants = {"gptq": ["gptq-4bit-64g-actorder_False", taken, free]}
    reasons = {
        step.variant: step.reason for step in press.plan("up/Branched", formats=["gptq"], variants=variants)[0].steps
    }
    assert reasons == {
        "gptq-4bit-64g-actorder_False": "new",
        free: "new",
        taken: f"blocked: branch {taken} of {repo_id} was not made by quantpress "
        "(it holds weights and no quantpress.json): delete the branch or leave the variant out",
    }
