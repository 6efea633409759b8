"""What a commit keeps of what was published before. Nothing on record goes until it is made anew."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from quantpress.hub.hubs import Hubs
from quantpress.record.manifest import Alias
from quantpress.settings import Settings
from quantpress.upkeep.retract import retract
from tests.support.nights import card, manifest, night
from tests.support.planned import CONFIG, Press, running_press

#: A source's later weights. They differ from its first weights but have the same shape.
MOVED = {"model.safetensors": save({"model.embed_tokens.weight": np.ones((64, 576), np.float16)})}


@pytest.fixture(scope="module")
def press(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Press]:
    with running_press(tmp_path_factory.mktemp("publication")) as press:
        yield press


def models(press: Press, repo_id: str, revision: str = "main") -> list[str]:
    files = press.api.list_repo_files(repo_id, revision=revision)
    return [file for file in files if file.endswith((".gguf", ".safetensors"))]


def test_a_blocked_rung_stays_until_a_later_run_has_bytes_for_it(press: Press, tmp_path: Path) -> None:
    line = {"repo": "up/Blocked", "variants": {"gguf": ["Q8_0", "Q4_0"]}}
    old = press.source("up/Blocked")
    first = night(press, line, tmp_path)
    first.press(first.entry("Q8_0"), first.entry("Q4_0"))
    press.source("up/Blocked", CONFIG, **MOVED)

    unlimited = night(press, line, tmp_path)
    estimates = [each.step.estimate for each in unlimited.plan.variants]
    largest = max(estimate.upload for estimate in estimates if estimate is not None)
    second = night(press, line, tmp_path, upload_budget=largest)
    assert [step.variant for step in second.model.deferred] == ["Q4_0"]
    second.press(second.entry("Q8_0"))

    assert models(press, "press/Blocked-GGUF") == ["Blocked-Q4_0.gguf", "Blocked-Q8_0.gguf"]
    after = manifest(press, "press/Blocked-GGUF", tmp_path)
    assert {entry.variant: entry.status for entry in after.entries} == {"Q8_0": "published", "Q4_0": "published"}
    assert after.flags["Q4_0"] == f"made from the source's earlier commit {old[:8]}"
    third = night(press, line, tmp_path)
    assert [(step.variant, step.action) for step in third.model.steps][:2] == [("Q8_0", "verify"), ("Q4_0", "press")]


def test_a_variant_that_left_the_catalog_stays(press: Press, tmp_path: Path) -> None:
    line = {"repo": "up/Left", "variants": {"gguf": ["Q8_0", "Q4_0"]}}
    press.source("up/Left")
    first = night(press, line, tmp_path)
    first.press(first.entry("Q8_0"), first.entry("Q4_0"))
    press.source("up/Left", CONFIG, **MOVED)

    second = night(press, line | {"variants": {"gguf": ["Q8_0"]}}, tmp_path)
    second.press(second.entry("Q8_0"))

    assert models(press, "press/Left-GGUF") == ["Left-Q4_0.gguf", "Left-Q8_0.gguf"]
    assert "Left-Q4_0.gguf" in card(press, "press/Left-GGUF", tmp_path)


def test_a_rung_that_is_not_made_yet_says_that_it_will_be(press: Press, tmp_path: Path) -> None:
    line = {"repo": "up/Coming", "variants": {"gguf": ["Q8_0", "Q4_0"]}}
    old = press.source("up/Coming")
    first = night(press, line, tmp_path)
    first.press(first.entry("Q8_0"), first.entry("Q4_0"))
    press.source("up/Coming", CONFIG, **MOVED)
    second = night(press, line, tmp_path)
    assert second.press(second.entry("Q8_0")).flags["Q4_0"] == (
        f"made from the source's earlier commit {old[:8]}, to be made anew"
    )


def test_a_new_default_takes_the_place_of_the_old_one_on_main(press: Press, tmp_path: Path) -> None:
    """The variant with the largest possible group size is on ``main``. With other widths, that is another variant."""
    small, large = "gptq-4bit-32g-actorder_False", "gptq-4bit-64g-actorder_False"
    line = {"repo": "up/Default", "formats": ["gptq"], "variants": {"gptq": [small]}}
    narrow = CONFIG | {"hidden_size": 288, "num_attention_heads": 9, "head_dim": 32, "intermediate_size": 864}
    press.source("up/Default", narrow)
    first = night(press, line, tmp_path)
    assert first.planned(small).variant.branch == "main"
    first.press(first.entry(small))
    press.source("up/Default", CONFIG, **MOVED)

    second = night(press, line | {"variants": {"gptq": [large, small]}}, tmp_path)
    second.press(second.entry(large))
    after = manifest(press, "press/Default-GPTQ", tmp_path)
    assert [entry.variant for entry in after.entries] == [large]
    second.press(second.entry(small))
    after = manifest(press, "press/Default-GPTQ", tmp_path)
    assert {entry.variant: entry.branch for entry in after.entries} == {large: "main", small: small}
    assert models(press, "press/Default-GPTQ", small) == ["model.safetensors"]


def test_a_branchs_card_links_the_tags_that_the_branch_has(press: Press, tmp_path: Path) -> None:
    """The branch's variant is first published after the source moved, and is not made for the source's third commit."""
    default, other = "gptq-4bit-64g-actorder_False", "gptq-4bit-32g-actorder_True"
    line = {"repo": "up/Tags", "formats": ["gptq"], "variants": {"gptq": [default, other]}}
    made = [[default], [default, other], [default], [default, other]]
    shas = []
    for number, variants in enumerate(made):
        weights = save({"model.embed_tokens.weight": np.full((64, 576), number, np.float16)})
        shas.append(press.source("up/Tags", CONFIG, **{"model.safetensors": weights}))
        current = night(press, line, tmp_path)
        for variant in variants:
            current.press(current.entry(variant))
        if number == 1:
            assert "stays under a tag" not in card(press, "press/Tags-GPTQ", tmp_path, other)

    tags = {tag.name for tag in press.api.list_repo_refs("press/Tags-GPTQ").tags}
    assert tags == {"v1", "v2", "v3", f"v1-{other}"}
    text = card(press, "press/Tags-GPTQ", tmp_path, other)
    assert "What this branch held before stays under a tag:" in text
    assert re.findall(r"/press/Tags-GPTQ/tree/(v\d[^)>]*)", text) == [f"v1-{other}"]
    assert f"| [`{shas[1]}`]" in text
    assert manifest(press, "press/Tags-GPTQ", tmp_path, f"v1-{other}").source.sha == shas[1]
    on_main = re.findall(r"/press/Tags-GPTQ/tree/(v\d[^)>]*)", card(press, "press/Tags-GPTQ", tmp_path))
    assert on_main == ["v1", "v2", "v3"]
    assert [manifest(press, "press/Tags-GPTQ", tmp_path, tag).source.sha for tag in on_main] == shas[:3]


def test_what_was_verified_of_each_branch_stays_known(press: Press, tmp_path: Path) -> None:
    """Each variant is verified after its commit. The next variant's commit, on another branch, puts that on record."""
    variants = ["gptq-4bit-64g-actorder_False", "gptq-4bit-32g-actorder_True", "gptq-8bit-64g-actorder_True"]
    line = {"repo": "up/Verified", "formats": ["gptq"], "variants": {"gptq": variants}}
    press.source("up/Verified")
    first = night(press, line, tmp_path)
    verified: dict[str, str] = {}
    for number, variant in enumerate(variants):
        first.press(first.entry(variant), verified=verified)
        verified = {variant: str(number) * 40}
    first.cards(verified=verified)
    assert [(each.variant.name, each.step.action) for each in night(press, line, tmp_path).plan.variants] == [
        (variant, "keep") for variant in variants
    ]


def test_a_rung_that_is_the_same_as_another_now_gives_way_to_it(press: Press, tmp_path: Path) -> None:
    """Q4_K_L has a file of its own from the night before. Now it has the same bytes as Q4_K_M."""
    line = {"repo": "up/Alias", "variants": {"gguf": ["Q4_K_M", "Q4_K_L"]}}
    repo_id = "press/Alias-GGUF"
    press.source("up/Alias")
    first = night(press, line, tmp_path)
    first.press(first.entry("Q4_K_L"), first.entry("Q4_K_M"))
    press.source("up/Alias", CONFIG, **MOVED)

    second = night(press, line, tmp_path)
    recipe = second.planned("Q4_K_L").recipe
    alias = Alias(recipe=recipe, fingerprint=recipe.fingerprint, same_as="Q4_K_M")
    second.press(aliases=[alias])
    assert models(press, repo_id) == ["Alias-Q4_K_L.gguf", "Alias-Q4_K_M.gguf"]
    second.press(second.entry("Q4_K_M"), aliases=[alias])
    assert models(press, repo_id) == ["Alias-Q4_K_M.gguf"]
    assert night(press, line, tmp_path).planned("Q4_K_L").step.reason == "same as Q4_K_M"


def test_a_retraction_is_on_record_until_the_variant_is_published_anew(press: Press, tmp_path: Path) -> None:
    line = {"repo": "up/Retracted", "variants": {"gguf": ["Q8_0", "Q4_0", "Q5_0"]}}
    repo_id = "press/Retracted-GGUF"
    press.source("up/Retracted")
    first = night(press, line, tmp_path)
    first.press(*map(first.entry, ("Q8_0", "Q4_0", "Q5_0")))
    settings = Settings(namespace="press", target_endpoint=press.api.endpoint)
    retract(Hubs(press.api, press.api), repo_id, "Q4_0", "wrong rope scaling", settings)
    press.source("up/Retracted", CONFIG, **MOVED)

    second = night(press, line, tmp_path)
    assert second.planned("Q4_0").step.action == "press"
    second.press(second.entry("Q8_0"))
    entry = manifest(press, repo_id, tmp_path).entry("Q4_0")
    assert entry is not None and (entry.status, entry.retraction) == ("retracted", "wrong rope scaling")
    assert "wrong rope scaling |" in card(press, repo_id, tmp_path)

    second.press(second.withheld("Q4_0", "too far"))
    assert "| too far; what was published before was retracted: wrong rope scaling |" in card(press, repo_id, tmp_path)
    assert night(press, line, tmp_path).planned("Q4_0").step.reason == "withheld: too far"

    second.press(second.entry("Q4_0"))
    assert "wrong rope scaling" not in card(press, repo_id, tmp_path)
    assert models(press, repo_id) == ["Retracted-Q4_0.gguf", "Retracted-Q5_0.gguf", "Retracted-Q8_0.gguf"]
