"""The plan names what is published from a source that is now known to be bad, with the command that withdraws it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from quantpress.record.manifest import Manifest
from tests.support import samples
from tests.support.planned import CONFIG, Press, running_press

VARIANT = "gptq-4bit-64g-actorder_False"


@pytest.fixture(scope="module")
def press(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Press]:
    with running_press(tmp_path_factory.mktemp("withdraw")) as press:
        yield press


def publish(press: Press, name: str, sha: str, manifest: Manifest, **artifact: Any) -> str:
    """Publishes a repo whose only variant was made from ``up/NAME`` at a commit."""
    entry = manifest.entries[0]
    variant = "Q8_0" if manifest.format == "gguf" else VARIANT
    recipe = entry.recipe.model_copy(update={"source": f"up/{name}", "source_sha": sha, "variant": variant})
    changed = entry.model_copy(
        update={
            "recipe": recipe,
            "fingerprint": recipe.fingerprint,
            "branch": "main",
            "artifact": entry.artifact.model_copy(update=artifact),
        }
    )
    suffix = "GGUF" if manifest.format == "gguf" else "GPTQ"
    own = manifest.model_copy(update={"entries": [changed], "shared": []})
    press.put(f"press/{name}-{suffix}", {"quantpress.json": own.to_json().encode()})
    return f"press/{name}-{suffix}"


def faults(press: Press, name: str, format_name: str = "gptq") -> list[tuple[str, str]]:
    """Returns the variant and the reason of each blocked step that asks to withdraw something."""
    (plan,) = press.plan(f"up/{name}", formats=[format_name])
    return [(step.variant, step.reason) for step in plan.blocked if "withdraw it" in step.reason]


@pytest.mark.parametrize("format_name", ["gguf", "gptq"])
def test_a_copy_of_a_copy(press: Press, format_name: str) -> None:
    name = f"Quantized-{format_name}"
    sha = press.source(f"up/{name}", CONFIG | {"quantization_config": {"quant_method": "gptq", "bits": 4}})
    made = samples.gguf({"Q8_0": 8.5}) if format_name == "gguf" else samples.gptq()
    repo_id = publish(press, name, sha, made)
    variant = "Q8_0" if format_name == "gguf" else VARIANT
    assert faults(press, name, format_name) == [
        (
            variant,
            "blocked: it is published, and its source is quantized already; withdraw it: "
            f"quantpress retract {repo_id} {variant} --reason 'its source is quantized already'",
        )
    ]
    (plan,) = press.plan(f"up/{name}", formats=[format_name])
    assert plan.blocked[0].reason == (
        f"blocked: the source is quantized already (gptq), and {format_name} is made of unquantized models: name the "
        "model that it was made from"
    )
    assert not plan.formats[0].to_make


def test_weights_that_the_source_never_had(press: Press) -> None:
    sha = press.source("up/Random")
    publish(press, "Random", sha, samples.gptq(), tensor_types={"int4": 1500}, details={"weights": 1000})
    ((variant, reason),) = faults(press, "Random")
    assert variant == VARIANT
    assert reason.startswith(
        "blocked: it is published, and it has 500 weights that are in no file of its source, so they are random "
        "numbers; withdraw it: quantpress retract press/Random-GPTQ gptq-4bit-64g-actorder_False --reason "
    )
    (plan,) = press.plan("up/Random", formats=["gptq"])
    assert [step.variant for step in plan.steps if step.action == "evaluate"] == []


def test_a_second_copy_of_a_tied_head_is_no_fault_and_a_missing_head_is(press: Press) -> None:
    head = CONFIG["vocab_size"] * CONFIG["hidden_size"]
    figures: dict[str, Any] = {"tensor_types": {"int4": 1000 + head}, "details": {"weights": 1000}}
    publish(press, "Tied", press.source("up/Tied"), samples.gptq(), **figures)
    assert faults(press, "Tied") == []
    sha = press.source("up/Untied", CONFIG | {"tie_word_embeddings": False})
    publish(press, "Untied", sha, samples.gptq(), **figures)
    assert len(faults(press, "Untied")) == 1


def test_weights_that_were_counted_twice(press: Press) -> None:
    sha = press.source("up/Twice", CONFIG, **{"consolidated.safetensors": b"x"})
    files = {"model.safetensors": "a", "consolidated.safetensors": "b"}
    by_files = samples.gptq(source=samples.source(repo="up/Twice", sha=sha, files=files))
    publish(press, "Twice", sha, by_files)
    ((_, reason),) = faults(press, "Twice")
    assert "its bits per weight count files that are not the model's (consolidated.safetensors); withdraw" in reason
    publish(press, "Twice", sha, samples.gptq(), tensor_types={"int4": 1000}, details={"weights": 2000})
    ((_, reason),) = faults(press, "Twice")
    assert "its bits per weight count the source's weights twice; withdraw" in reason


def test_a_sound_variant_and_one_of_an_earlier_commit_are_not_named(press: Press) -> None:
    old = press.source("up/Sound")
    publish(press, "Sound", old, samples.gptq(), tensor_types={"int4": 1000}, details={"weights": 1000})
    assert faults(press, "Sound") == []
    publish(press, "Sound", old, samples.gptq(), tensor_types={"int4": 1500}, details={"weights": 1000})
    assert len(faults(press, "Sound")) == 1
    press.source("up/Sound", CONFIG | {"note": "moved"})
    assert faults(press, "Sound") == []


def test_what_is_withdrawn_is_not_named_again(press: Press) -> None:
    sha = press.source("up/Gone")
    manifest = samples.gptq()
    gone = manifest.entries[0].model_copy(update={"status": "retracted", "retraction": "random"})
    publish(
        press,
        "Gone",
        sha,
        manifest.model_copy(update={"entries": [gone]}),
        tensor_types={"int4": 1500},
        details={"weights": 1000},
    )
    assert faults(press, "Gone") == []
