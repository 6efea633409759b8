"""When a press takes the published shared files that are costly to make, and what it uses them for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from quantizers import quantizer
from quantizers.gguf.imatrix import read_report
from quantizers.protocol import CalibrationText, Job, Variant
from quantpress.catalog.schema import CalibrationLine
from quantpress.evaluation.base import BaseCache
from quantpress.evaluation.text import EvaluationText
from quantpress.files import place, sha256_of
from quantpress.localhub.server import running_hub
from quantpress.machine.workspace import Workspace
from quantpress.plan.decide import Action
from quantpress.plan.steps import FormatPlan, Step, VariantPlan
from quantpress.press import stages
from quantpress.press.bench import Bench
from quantpress.press.refresh import keeps_costly, retrieve_costly
from quantpress.record.manifest import Entry, File, Manifest
from quantpress.record.recipe import Calibration, Recipe
from quantpress.record.shelf import Shelf
from quantpress.settings import Settings
from quantpress.source.source import Source
from quantpress.toolchain.llama_cpp import LlamaCpp
from tests.support import samples
from tests.support.gguf_files import narrow, write_imatrix

REPO, IMATRIX = "press/SmolLM2-135M-Instruct-GGUF", "SmolLM2-135M-Instruct.imatrix.gguf"
BEFORE, NOW = samples.SHA, "f" * 40


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HfApi]:
    with running_hub(tmp_path_factory.mktemp("hub")) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.create_token("press", "write"))
        api.create_repo(REPO)
        api.upload_file(repo_id=REPO, path_in_repo=IMATRIX, path_or_fileobj=b"sums of squares")
        yield api


def manifest(api: HfApi, folder: Path, entries: list[Entry]) -> Manifest:
    path = Path(api.hf_hub_download(REPO, IMATRIX, local_dir=folder))
    shared = [File(path=IMATRIX, size=path.stat().st_size, sha256=sha256_of(path))]
    return samples.gguf().model_copy(update={"entries": entries, "shared": shared})


def quantized(variant: str, sha: str) -> Entry:
    entry = samples.entry("gguf", variant, bits=6.0, divergence=0.1)
    recipe = entry.recipe.model_copy(update={"source_sha": sha})
    return entry.model_copy(update={"recipe": recipe, "fingerprint": recipe.fingerprint})


def refreshed(variant: str) -> Entry:
    """An entry that was quantized from the commit before and now has the metadata of the source's present commit."""
    entry = quantized(variant, NOW)
    artifact = entry.artifact.model_copy(update={"details": {"weights_from": BEFORE}})
    return entry.model_copy(update={"artifact": artifact})


def planned(variant: str, action: Action) -> VariantPlan:
    step = Step(model="m/m", format="gguf", variant=variant, repo_id=REPO, action=action, reason="")
    return VariantPlan(Variant(format="gguf", name=variant), quantized(variant, NOW).recipe, step)


@pytest.mark.parametrize(
    ("published", "actions", "kept", "prepared"),
    [
        ([quantized("Q8_0", BEFORE)], {"Q8_0": "refresh"}, [IMATRIX], []),
        ([refreshed("Q8_0")], {"Q8_0": "evaluate"}, [IMATRIX], []),
        # The source's commit in a quantized variant's recipe must also be the commit of the variant's imatrix.
        ([quantized("Q8_0", BEFORE)], {"Q8_0": "refresh", "Q4_0": "press"}, [], []),
        ([refreshed("Q8_0")], {"Q8_0": "keep", "Q4_0": "press"}, [], []),
        ([refreshed("Q8_0"), quantized("Q6_K", NOW)], {"Q8_0": "keep", "Q4_0": "press"}, [], [IMATRIX]),
        ([quantized("Q8_0", BEFORE), quantized("Q6_K", NOW)], {"Q8_0": "refresh"}, [], [IMATRIX]),
    ],
)
def test_a_published_imatrix_is_taken_where_it_is_the_recipes_or_nothing_is_quantized(
    hub: HfApi, tmp_path: Path, published: list[Entry], actions: dict[str, Action], kept: list[str], prepared: list[str]
) -> None:
    main = manifest(hub, tmp_path / "look", published)
    heads = {"main": hub.list_repo_refs(REPO).branches[0].target_commit}
    variants = tuple(planned(name, action) for name, action in actions.items())
    plan = FormatPlan("gguf", Shelf(REPO, heads, {"main": main}), variants, ())
    job = Job(
        step="prepare",
        variant=variants[0].variant,
        model_name="SmolLM2-135M-Instruct",
        source=tmp_path,
        prepared=tmp_path / "prepared",
        published=tmp_path / "published" if keeps_costly(plan) else None,
        out=tmp_path,
        calibration=CalibrationText(name="t", path=tmp_path, sha256="", samples=2, length=128),
        threads=1,
        device="cpu",
    )

    retrieve_costly(hub, plan, job)

    assert [path.name for path in (tmp_path / "published").glob("*")] == kept
    assert [path.name for path in (tmp_path / "prepared").glob("*")] == prepared


@pytest.mark.slow
def test_an_imatrix_that_is_kept_is_not_what_a_variant_is_quantized_by(
    llama_cpp: LlamaCpp, tiny_model: Path, english: Path, tmp_path: Path
) -> None:
    """A run that only refreshes was killed. The next run also has a variant to press."""
    text = EvaluationText("english", english, sha256_of(english))
    workspace = Workspace(tmp_path, "maker/Tiny", NOW)
    shutil.copytree(tiny_model, workspace.source)
    bench = Bench(
        source=Source(samples.source(), {}, ()),
        settings=Settings(home=tmp_path),
        workspace=workspace,
        calibration=text,
        amount=CalibrationLine(samples=2, length=128),
        text=text,
        protocol=samples.PROTOCOL,
        gates={},
        device="cpu",
        threads=2,
        bases=BaseCache(tmp_path / "bases", 0),
    )
    variant = quantizer("gguf").variant("Q4_K_M", json.loads((tiny_model / "config.json").read_bytes()))
    recipe = Recipe(
        format="gguf",
        variant="Q4_K_M",
        source="maker/Tiny",
        source_sha=NOW,
        quantizer=llama_cpp.version,
        parameters=variant.parameters,
        calibration=Calibration(text=text.name, sha256=text.sha256, samples=2, length=128),
    )
    published = tmp_path / "earlier.gguf"
    write_imatrix(published, narrow(tiny_model))

    def prepared(keeps_costly: bool) -> int:
        """Returns the number of windows that the imatrix was made from."""

        def retrieve(job: Job) -> None:
            if job.published is not None:
                place(published, job.published / "Tiny.imatrix.gguf")

        job = stages.prepare(bench, variant, recipe, retrieve, keeps_costly=keeps_costly)
        return read_report(job.prepared / "Tiny.imatrix.gguf").windows

    assert prepared(keeps_costly=True) == 7
    assert prepared(keeps_costly=False) == 2
    # An imatrix that a variant is quantized with is not given up for one that is only kept.
    assert prepared(keeps_costly=True) == 2
