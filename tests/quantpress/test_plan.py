"""The plan as both Hubs are: reasons, and everything that a source can be refused for."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from pydantic import ByteSize
from safetensors.numpy import save

from quantizers.gguf.quantizer import GGUF
from quantpress.card_templates import templates_fingerprint
from quantpress.catalog_file import parse_catalog
from quantpress.comparison_state import state_of
from quantpress.errors import BadInput, QuantpressError
from quantpress.evaluation.protocol import current_protocol
from quantpress.localhub.server import RunningHub, running_hub
from quantpress.manifest import Manifest, Verdict, parse_manifest
from quantpress.plan import ModelPlan
from quantpress.planning import plan_catalog
from quantpress.settings import Settings
from tests.quantpress import samples

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "dtype": "float16",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "num_hidden_layers": 2,
    "vocab_size": 64,
}
WEIGHTS = save({"model.embed_tokens.weight": np.zeros((64, 576), np.float16)})


@dataclass(frozen=True)
class Press:
    """An embedded Hub with sources on it, and the plan for a catalog."""

    hub: RunningHub
    api: HfApi
    home: Path

    def put(self, repo_id: str, files: dict[str, bytes], branch: str = "main") -> str:
        self.api.create_repo(repo_id, exist_ok=True)
        operations = [CommitOperationAdd(path, io.BytesIO(content)) for path, content in files.items()]
        return self.api.create_commit(repo_id, operations, commit_message="put", revision=branch).oid

    def source(self, repo_id: str, config: dict[str, Any] = CONFIG, **files: bytes) -> str:
        return self.put(repo_id, {"config.json": json.dumps(config).encode(), "model.safetensors": WEIGHTS, **files})

    def plan(
        self,
        *models: Any,
        namespace: str = "press",
        only: str | None = None,
        upload_budget: int | None = None,
        **defaults: Any,
    ) -> list[ModelPlan]:
        text = json.dumps({"models": list(models), "defaults": {"formats": ["gguf"], **defaults}})
        settings = Settings(namespace=namespace, home=self.home, upload_budget=upload_budget)
        return plan_catalog(parse_catalog(text, "c"), settings, self.api, self.api, only=only)

    def reasons(self, *models: Any, **defaults: Any) -> list[str]:
        return [step.reason for plan in self.plan(*models, **defaults) for step in plan.steps]


@pytest.fixture(scope="module")
def press(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Press]:
    folder = tmp_path_factory.mktemp("plan")
    with running_hub(folder / "hub") as hub:
        yield Press(hub, HfApi(endpoint=hub.endpoint, token=hub.create_token("press", "write")), folder / "home")


def published_as(press: Press, repo_id: str, plan: ModelPlan, **entry: Any) -> None:
    """Publishes a manifest with one entry made from the plan's first recipe."""
    recipe = plan.formats[0].variants[0].recipe
    sample = samples.gguf({"Q8_0": 8.5})
    own = {"recipe": recipe, "fingerprint": recipe.fingerprint, "verified": "a" * 40, **entry}
    changed = sample.entries[0].model_copy(update=own)
    if changed.evaluation.protocol == samples.PROTOCOL:  # a test that says nothing of the protocol has the current one
        assert plan.source is not None
        protocol = current_protocol(plan.source, Settings(home=press.home))
        changed = changed.model_copy(
            update={"evaluation": changed.evaluation.model_copy(update={"protocol": protocol})}
        )
    card = templates_fingerprint("gguf")
    manifest: Manifest = sample.model_copy(update={"entries": [changed], "shared": [], "card": card})
    press.put(repo_id, {"quantpress.json": manifest.to_json().encode()})
    compared_as(press, repo_id, manifest)


def compared_as(press: Press, repo_id: str, manifest: Manifest) -> None:
    """Publishes a comparison that was made from this manifest alone."""
    comparison = repo_id.removesuffix("-GGUF") + "-quantized"
    state = state_of({repo_id: manifest}, [repo_id, comparison])
    press.put(comparison, {"made_from.json": state.to_json().encode()})


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
    assert press.reasons(raised) == ["gate changed: the limit of its mean KLD is 0.006 now"]
    raised["gates"]["Q8_0"]["max_divergence"] = 0.0035
    assert press.reasons(raised) == ["withheld: mean KLD 0.0042 is above 0.003"]
    published_as(press, "press/Limits-GGUF", plan, evaluation=samples.evaluation(16.2, 0.002))
    assert press.reasons(line) == ["up to date"]
    lowered = line | {"gates": {"Q8_0": {"max_divergence": 0.001, "reason": "strict"}}}
    assert press.reasons(lowered) == ["gate changed: the limit of its mean KLD is 0.001 now"]


def test_a_changed_protocol_measures_again_what_is_published_and_makes_anew_what_was_withheld(press: Press) -> None:
    line: dict[str, Any] = {"repo": "up/Protocol", "variants": {"gguf": ["Q8_0"]}}
    press.source("up/Protocol")
    (plan,) = press.plan(line)
    assert plan.source is not None
    now = current_protocol(plan.source, Settings(home=press.home))

    def planned(**changes: Any) -> tuple[str, str]:
        measured = samples.evaluation(16.2, 0.002, protocol=now.model_copy(update=changes))
        published_as(press, "press/Protocol-GGUF", plan, evaluation=measured)
        (step,) = press.plan(line)[0].steps
        return step.action, step.reason

    assert planned() == ("keep", "up to date")
    assert planned(version=1) == ("evaluate", "protocol changed: version 1 to 2")
    assert planned(text="wikitext-2-raw-test", text_sha256="e" * 64) == (
        "evaluate",
        "evaluation text changed: wikitext-2-raw-test to pydoc-topics",
    )
    assert planned(text_sha256="e" * 64)[1].startswith("evaluation text changed: eeeeeeee to ")
    assert planned(windows=10) == ("evaluate", "windows changed: 10 of 512 tokens to 64 of 512")
    assert [each.variant.name for each in press.plan(line)[0].formats[0].to_evaluate] == ["Q8_0"]

    verdict = Verdict(passed=False, reasons=["too far"])
    old = samples.evaluation(16.2, 0.002, protocol=now.model_copy(update={"version": 1}))
    published_as(press, "press/Protocol-GGUF", plan, evaluation=old, status="withheld", verdict=verdict)
    assert press.reasons(line) == ["protocol changed: version 1 to 2; it was withheld, so its files are made anew"]


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
        "blocked: transformers 5.17.0 knows no model type 'strange', and measures the unquantized model: "
        "skip the model in the catalog until it does"
    ]
    assert press.reasons("up/Arcee", formats=["gptq"]) == ["blocked: GPTQModel does not know the architecture 'arcee'"]
    assert press.reasons({"repo": "up/Known", "backends": {"gptq": "auto-gptq"}}, formats=["gptq"]) == [
        "blocked: needs a CUDA runner"
    ]
    assert press.reasons("up/Known", formats=["awq"], backends={"awq": "autoawq"}) == [
        "blocked: the archived libraries are not installed: run `quantpress toolchain install archived-libraries`"
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
        plan_catalog(catalog, Settings(namespace="press", home=press.home), press.api, nowhere)


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
