"""Which licences stop a model in the plan, and what cards and repositories take over from the source."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import GatedRepoError

from quantpress.card.context import CardContext
from quantpress.card.render import render_card
from quantpress.catalog.reader import parse_catalog
from quantpress.errors import Refused
from quantpress.hub.hubs import Hubs
from quantpress.localhub.server import RunningHub, running_hub
from quantpress.plan.make import plan_catalog
from quantpress.plan.steps import ModelPlan
from quantpress.publish.gated import make_gated_like_source
from quantpress.settings import Settings
from quantpress.source.gate_fields import gate_fields
from quantpress.source.licence import require_permission
from quantpress.source.source import look_up_source
from tests.support import samples
from tests.support.nights import night
from tests.support.planned import CONFIG, WEIGHTS, Press

ADVICE = "; if you may publish it, say why in the catalog: licence_override"


@pytest.mark.parametrize(
    ("licence", "reason"),
    [
        ({"license": "cc-by-nd-4.0"}, "its licence cc-by-nd-4.0 forbids changed copies, which a quantized model is"),
        (
            {"license": "CC-BY-NC-ND-3.0"},
            "its licence CC-BY-NC-ND-3.0 forbids changed copies, which a quantized model is",
        ),
        (
            {"license": "other", "license_name": "Evil No Derivatives", "license_link": "LICENSE"},
            "its licence Evil-No-Derivatives forbids changed copies, as its name says",
        ),
        (
            {"license": "other", "license_name": "lab_internal_research", "license_link": "LICENSE"},
            "its licence lab-internal-research forbids passing copies on, as its name says",
        ),
        (
            {"license": "other"},
            "its licence is 'other' and its card does not say where the text is, so that nobody can read the terms",
        ),
    ],
)
def test_a_licence_that_forbids_copies_blocks(licence: dict[str, object], reason: str) -> None:
    source = samples.source(**licence)
    with pytest.raises(Refused) as caught:
        require_permission(source, None)
    assert str(caught.value) == reason + ADVICE
    assert require_permission(source, "we wrote it").licence_override == "we wrote it"


@pytest.mark.parametrize(
    "licence",
    [
        {"license": "apache-2.0"},
        {"license": "cc-by-nc-4.0"},
        {"license": "cc-by-nc-sa-4.0"},
        {"license": "llama3.1"},
        {"license": None},
        {"license": "other", "license_name": "nvidia-open-model-license", "license_link": "LICENSE"},
        {"license": "other", "license_name": "Anderson", "license_link": "LICENSE"},
    ],
)
def test_others_do_not_and_need_no_reason(licence: dict[str, object]) -> None:
    source = samples.source(**licence)
    assert require_permission(source, None) == source
    assert require_permission(source, "no need").licence_override is None


def test_what_no_field_of_a_gate_can_be_is_left_out() -> None:
    deep: dict[str, object] = {"a": {"b": {"c": {"d": "e"}}}}
    card = {
        "extra_gated_heading": "Hello\u202e\x00",
        "extra_gated_deep": deep,
        "extra_gated_long": "x" * 100_001,
        "extra_gated_None": "x",
        "extra_gated_": "x",
        "license": "mit",
        "extra_gated_button_content": None,
    }
    assert gate_fields(card) == {"extra_gated_heading": "Hello", "extra_gated_deep": {"a": {"b": {}}}}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with running_hub(tmp_path_factory.mktemp("licence") / "hub") as running:
        yield running


def put(api: HfApi, repo: str, **files: bytes) -> None:
    api.create_repo(repo)
    content = {
        "config.json": b"{}",
        "model.safetensors": WEIGHTS,
        **{k.replace("__", "."): v for k, v in files.items()},
    }
    operations = [CommitOperationAdd(path, io.BytesIO(data)) for path, data in content.items()]
    api.create_commit(repo, operations, commit_message="put")


CARD = b"""---
license: other
license_name: own
extra_gated_heading: Read this first
extra_gated_fields:
  Name: text
---
# M
"""


def test_a_gated_source_needs_a_token_and_makes_a_gated_repo(hub: RunningHub) -> None:
    upstream = HfApi(endpoint=hub.endpoint, token=hub.create_token("maker", "write"))
    put(upstream, "maker/M", README__md=CARD, LICENSE=b"Mine.")
    upstream.update_repo_settings("maker/M", gated="auto")

    with pytest.raises(Refused, match=r"^gated: accept the terms at .*/maker/M and give a token \(hf auth login\)$"):
        look_up_source(HfApi(endpoint=hub.endpoint, token=False), "maker/M", "main")

    record = look_up_source(upstream, "maker/M", "main").record
    assert record.gated == "auto"
    assert record.gate_fields == {"extra_gated_heading": "Read this first", "extra_gated_fields": {"Name": "text"}}
    # The card names no link, but the repo holds the text.
    assert record.license_link == "LICENSE"
    assert require_permission(record, None) == record

    press = HfApi(endpoint=hub.endpoint, token=hub.create_token("press", "write"))
    press.create_repo("press/M-GGUF")
    make_gated_like_source(press, "press/M-GGUF", record)
    operations = [CommitOperationAdd("M-Q8_0.gguf", b"quantized")]
    press.create_commit("press/M-GGUF", operations, commit_message="put")
    assert press.model_info("press/M-GGUF").gated == "auto"
    nobody = HfApi(endpoint=hub.endpoint, token=False)
    with pytest.raises(GatedRepoError):
        nobody.hf_hub_download("press/M-GGUF", "M-Q8_0.gguf")


def test_an_open_source_leaves_a_repo_as_its_owner_set_it(hub: RunningHub) -> None:
    press = HfApi(endpoint=hub.endpoint, token=hub.create_token("press", "write"))
    press.create_repo("press/Own-GGUF")
    press.update_repo_settings("press/Own-GGUF", gated="manual")
    make_gated_like_source(press, "press/Own-GGUF", samples.source())
    assert press.model_info("press/Own-GGUF").gated == "manual"


def test_the_plan_blocks_it_unless_the_catalog_says_why_not(hub: RunningHub, tmp_path: Path) -> None:
    api = HfApi(endpoint=hub.endpoint, token=hub.create_token("maker", "write"))
    put(
        api,
        "maker/ND",
        README__md=b"---\nlicense: [mit, cc-by-nd-4.0]\n---\n",
        config__json=json.dumps(CONFIG).encode(),
    )

    def plan(**line: str) -> ModelPlan:
        text = json.dumps({"models": [{"repo": "maker/ND", **line}], "defaults": {"formats": ["gguf"]}})
        settings = Settings(namespace="press", home=tmp_path)
        (found,) = plan_catalog(parse_catalog(text, "c"), settings, Hubs(api, api))
        return found

    (step,) = plan().steps
    assert (step.action, step.reason) == (
        "block",
        "blocked: its licence cc-by-nd-4.0 forbids changed copies, which a quantized model is" + ADVICE,
    )
    allowed = plan(licence_override="we asked {{ 7*7 }} <b>them</b>")
    assert {step.action for step in allowed.steps} == {"press"}
    assert allowed.source is not None
    context = CardContext(repo_id="press/ND-GGUF", quantized_by="press")
    card = render_card(samples.gguf(source=allowed.source.record), context)
    assert "| Licence | cc-by-nd-4.0; published because: we asked {{ 7\\*7 }} &#60;b&#62;them&#60;/b&#62; |" in card


def test_a_source_that_is_gated_without_a_commit_is_work_once(hub: RunningHub, tmp_path: Path) -> None:
    press = Press(hub, HfApi(endpoint=hub.endpoint, token=hub.create_token("press", "write")), tmp_path / "home")
    line = {"repo": "up/Gate", "variants": {"gguf": ["Q8_0"]}}
    press.source("up/Gate")
    first = night(press, line, tmp_path)
    first.press(first.entry("Q8_0", verified="a" * 40))

    def steps() -> list[tuple[str, str, str]]:
        return [(step.variant, step.action, step.reason) for step in night(press, line, tmp_path).model.steps][:2]

    unchanged = ("Q8_0", "keep", "up to date")
    assert steps()[0] == unchanged
    for gated, reason in [
        ("auto", "the source is gated now (auto)"),
        ("manual", "the source is gated now (manual)"),
        (False, "the source is not gated any more"),
    ]:
        press.api.update_repo_settings("up/Gate", gated=gated)
        assert steps() == [unchanged, ("", "card", reason)]
        night(press, line, tmp_path).cards()
        assert [action for _, action, _ in steps()] == ["keep", "compare"]
