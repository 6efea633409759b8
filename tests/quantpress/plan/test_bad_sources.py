"""One odd source, or one odd repository of ours, never stops the plan of the others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import ModelInfo

from quantpress.catalog.reader import parse_catalog
from quantpress.errors import QuantpressError
from quantpress.hub.hubs import Hubs
from quantpress.plan.make import plan_catalog
from quantpress.plan.orphans import find_orphans
from quantpress.settings import Settings
from tests.support.planned import CONFIG, WEIGHTS, Press, running_press


@pytest.fixture(scope="module")
def press(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Press]:
    with running_press(tmp_path_factory.mktemp("bad-sources")) as press:
        yield press


#: A dict from each odd file to its content and to what the plan says of the model.
ODD: dict[str, tuple[str, str, str]] = {
    "deep": ("config.json", '{"a":' * 700 + "1" + "}" * 700, "its config.json is nested more than 64 levels deep"),
    "vocabulary": ("config.json", json.dumps(CONFIG | {"vocab_size": 0}), "its config.json has a wrong vocab_size ("),
    "part": ("config.json", json.dumps(CONFIG | {"text_config": "x"}), "its config.json has a wrong text_config ("),
    "quoted": ("config.json", json.dumps(CONFIG | {"head_dim": "64"}), "its config.json has a wrong head_dim.0 ("),
    "list": ("chat_template.json", "[]", "its chat_template.json is not a JSON object"),
    "text": ("chat_template.json", '"x"', "its chat_template.json is not a JSON object"),
    "open": ("chat_template.json", "{", "its chat_template.json is not JSON"),
    "token": ("tokenizer_config.json", '{"eos_token": [2]}', "its tokenizer_config.json has a wrong eos_token"),
    "end": (
        "generation_config.json",
        '{"eos_token_id": "</s>"}',
        "its generation_config.json has a wrong eos_",
    ),
}


def test_odd_sources_are_blocked_and_the_others_are_planned(press: Press) -> None:
    lines = ["up/First", *(f"up/Odd-{name}" for name in ODD), "up/Last"]
    for repo in ("up/First", "up/Last"):
        press.source(repo)
    for name, (file, content, _) in ODD.items():
        press.source(f"up/Odd-{name}", **{file: content.encode()})

    plans = press.plan(*lines, formats=["gguf", "gptq", "exl3"], variants={"gguf": ["Q8_0"]})

    assert [plan.line.repo for plan in plans] == lines
    first, *odd, last = plans
    for plan in (first, last):
        assert plan.formats[0].variants[0].step.action == "press"
    for plan, (_, _, said) in zip(odd, ODD.values(), strict=True):
        (step,) = plan.steps
        assert step.action == "block"
        assert step.reason.startswith(f"blocked: {said}") and "\n" not in step.reason


def test_null_parts_are_no_obstacle(press: Press) -> None:
    press.source("up/Null", CONFIG | {"text_config": None, "quantization_config": None})
    variants = {"gguf": ["Q8_0"], "gptq": ["gptq-4bit-64g-actorder_True"]}
    assert press.reasons("up/Null", formats=["gguf", "gptq"], variants=variants) == ["new", "new"]


class Odd(HfApi):
    """A client to which a Hub's answers about one repository are odd. The embedded Hub cannot be made to answer so."""

    def __init__(self, api: HfApi, error: Exception) -> None:
        super().__init__(endpoint=api.endpoint, token=api.token)
        self._error = error

    def model_info(self, repo_id: str, **options: Any) -> ModelInfo:
        if "Odd" in repo_id:
            raise self._error
        return super().model_info(repo_id, **options)

    def list_repo_refs(self, repo_id: str, **options: Any) -> Any:
        if "Odd" in repo_id:
            raise self._error
        return super().list_repo_refs(repo_id, **options)

    def hf_hub_download(self, repo_id: str, *args: Any, **options: Any) -> Any:
        if "Odd" in repo_id:
            raise self._error
        return super().hf_hub_download(repo_id, *args, **options)


def answered(status: int) -> HfHubHTTPError:
    request = httpx.Request("GET", "http://hub/api/models/up/Odd")
    return HfHubHTTPError(f"{status} of the Hub", response=httpx.Response(status, request=request))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (answered(500), "blocked: looking up up/Odd on {}: 500 of the Hub"),
        (
            RecursionError("too deep"),
            "blocked: RecursionError: too deep (unexpected: report it with the name of the repository)",
        ),
    ],
)
def test_whatever_happens_to_one_model_blocks_that_model(press: Press, error: Exception, said: str) -> None:
    for repo in ("up/Odd", "up/Sound"):
        press.source(repo)
    odd, sound = replace(press, api=Odd(press.api, error)).plan("up/Odd", "up/Sound", variants={"gguf": ["Q8_0"]})
    assert [step.reason for step in odd.steps] == [said.format(press.api.endpoint)]
    assert [step.reason for step in sound.steps] == ["new"]


def test_a_hub_that_is_down_still_stops_the_plan(press: Press) -> None:
    press.source("up/Odd")
    with pytest.raises(QuantpressError, match=r"looking up up/Odd on .*: 503 of the Hub"):
        replace(press, api=Odd(press.api, answered(503))).plan("up/Odd", "up/Sound")


def test_a_file_that_a_hub_lost_blocks_its_model_alone(press: Press) -> None:
    """The Hub answers 410 about this file. The client then says that it has no connection."""
    config = json.dumps(CONFIG | {"note": "lost"}).encode()
    press.put("up/Lost", {"config.json": config, "model.safetensors": WEIGHTS})
    press.source("up/Found")
    sha256 = hashlib.sha256(config).hexdigest()
    (press.hub.root / "objects" / sha256[:2] / sha256).unlink()
    lost, found = press.plan("up/Lost", "up/Found", variants={"gguf": ["Q8_0"]})
    assert [step.action for step in lost.steps] == ["block"]
    assert lost.steps[0].reason.startswith(f"blocked: looking up up/Lost on {press.api.endpoint}: ")
    assert [step.action for step in found.steps] == ["press"]


def test_whatever_happens_to_one_of_our_repos_blocks_its_format(press: Press, tmp_path: Path) -> None:
    press.source("up/Shelf")
    press.source("up/Shelf-Odd")
    catalog = parse_catalog(
        json.dumps({"models": ["up/Shelf-Odd", "up/Shelf"], "defaults": {"formats": ["gguf"]}}), "c"
    )
    target = Odd(press.api, KeyError("branches"))
    odd, sound = plan_catalog(catalog, Settings(namespace="press", home=tmp_path), Hubs(press.api, target))
    assert [(step.format, step.action) for step in odd.steps] == [("gguf", "block")]
    assert odd.steps[0].reason.startswith("blocked: KeyError: 'branches' (unexpected: ")
    assert {step.action for step in sound.steps} == {"press"}


def test_an_odd_repository_does_not_hide_the_orphans(press: Press, tmp_path: Path) -> None:
    card = b"---\ntags: [quantpress]\n---\n"
    for repo in ("press/Left-GGUF", "press/Odd-GGUF"):
        press.put(repo, {"README.md": card, "quantpress.json": b"{}"})
    catalog = parse_catalog('{"models": []}', "c")
    settings = Settings(namespace="press", home=tmp_path)
    steps = find_orphans(catalog, settings, Odd(press.api, TypeError("odd")))
    assert [(step.repo_id, step.action) for step in steps] == [
        ("press/Left-GGUF", "orphaned"),
        ("press/Odd-GGUF", "block"),
    ]
    assert steps[1].reason == "blocked: TypeError: odd (unexpected: report it with the name of the repository)"
