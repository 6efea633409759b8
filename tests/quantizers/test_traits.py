"""The press takes each fact about a format from the format's traits, for a format that quantpress does not know too."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantpress.catalog.reader import parse_catalog
from quantpress.cli.doctor import examine
from quantpress.evaluation.protocol import current_protocol
from quantpress.gate.limits import Limit, limit_of
from quantpress.plan.estimate import estimate_variant
from quantpress.record.manifest import File
from quantpress.record.verification import Spoken
from quantpress.settings import Settings
from quantpress.verify.loading import Loader, Model
from quantpress.verify.verify import verify
from tests.support import samples
from tests.support.other_packages import install, site
from tests.support.planned import Press, running_press
from tests.support.served import sums

__all__ = ["site"]

MINE = """
from quantizers.checkpoint_format import CheckpointFormat
from quantizers.protocol import Variant
from quantizers.traits import Traits

class Format(CheckpointFormat):
    format, suffix, packages = "mine", "Mine", ("pydantic",)
    traits = Traits(
        limits={"mine-8bit": 0.25},
        core_seconds_per_weight=3e-3,
        toolchain="archived-libraries",
        is_one_file=True,
        renews_parts=False,
    )

    def known_names(self): return ["mine-8bit"]
    def ladders(self): return {}
    def default_variants(self, config): return ["mine-8bit"]
    def variant(self, name, config): return Variant(format="mine", name=name, nominal_bits=8)
    def quantize(self, job): raise NotImplementedError
"""
LINE = {"repo": "up/Model", "formats": ["mine"]}


@pytest.fixture
def mine(site: Path) -> None:
    install(site, "formats_traits", "mine = formats_traits:Format", MINE)


@pytest.fixture(scope="module")
def press(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Press]:
    with running_press(tmp_path_factory.mktemp("traits")) as press:
        press.source("up/Model")
        press.put("up/Model", {"tokenizer_config.json": b"{}"})
        yield press


def test_the_gate_and_the_estimate(mine: None, press: Press) -> None:
    (plan,) = press.plan(LINE)
    assert plan.source is not None
    (planned,) = plan.formats[0].variants

    assert limit_of(planned.variant, {}) == Limit(0.25)
    # Half the bytes of model.safetensors, times 0.003 s.
    assert estimate_variant(plan.source, planned.variant).core_seconds == pytest.approx(36_912 * 0.003)


def test_the_doctor_asks_for_the_toolchain(mine: None, press: Press) -> None:
    settings = Settings(source_endpoint=press.hub.endpoint, target_endpoint=press.hub.endpoint, home=press.home)
    catalog = parse_catalog(json.dumps({"models": [LINE]}), "c")
    needed = {
        each.name.partition(" ")[0]: each.needed for each in examine(catalog, settings) if each.area == "toolchain"
    }

    assert needed["archived-libraries"]
    assert not needed["llama.cpp"]


def test_the_plan_makes_several_files_again_that_cannot_get_new_metadata(mine: None, press: Press) -> None:
    (plan,) = press.plan(LINE)
    assert plan.source is not None
    recipe = plan.formats[0].variants[0].recipe
    assert plan.texts is not None
    protocol = current_protocol(plan.source, Settings(home=press.home), plan.texts.evaluation)
    evaluation = samples.evaluation(16.0, 0.01, "transformers", protocol)
    sample = samples.entry("mine", "mine-8bit", bits=8.0, divergence=0.01, files=["one.bin", "two.bin"])
    entry = sample.model_copy(update={"recipe": recipe, "fingerprint": recipe.fingerprint, "evaluation": evaluation})
    manifest = samples.gguf(entries=[entry], shared=[], source=plan.source.record, baselines=[])
    press.put("press/Model-Mine", {"quantpress.json": manifest.to_json().encode()})

    press.put("up/Model", {"tokenizer_config.json": b'{"bos_token": "x"}'})
    (step, *_) = press.plan(LINE)[0].steps
    assert step.action == "press", step.reason
    assert step.reason.endswith(
        "; changed: tokenizer_config.json; the variant has several files and cannot be given new metadata, so its "
        "files are made again"
    )


def test_the_verification_loads_the_file_that_the_engine_loads(
    mine: None, press: Press, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A stand-in takes the place of loading, because the format's files are no model here. It keeps what it gets."""
    content = {"one.bin": b"weights", "README.md": b"# Model\n"}
    sample = samples.entry("mine", "mine-8bit", bits=8.0, divergence=0.01, files=["one.bin"])
    file = File(path="one.bin", size=7, sha256=hashlib.sha256(b"weights").hexdigest())
    entry = sample.model_copy(update={"artifact": sample.artifact.model_copy(update={"files": [file]})})
    content["quantpress.json"] = samples.gguf(entries=[entry], shared=[]).to_json().encode()
    press.put("press/One-Mine", {**content, "SHA256SUMS": sums(content)})
    loaded: list[Model] = []

    def load(model: Model, loader: Loader, folder: Path) -> Spoken:
        loaded.append(model)
        return Spoken(model.name, "text", "")

    monkeypatch.setattr("quantpress.verify.verify.load", load)
    verify(press.api, "press/One-Mine", "main", Loader("cpu", 1), tmp_path)
    assert [(model.name, model.path.name) for model in loaded] == [("mine-8bit", "one.bin")]
