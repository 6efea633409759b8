"""What a killed press left on the disk is used again only if its bytes are still those that were made and measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile

from quantizers.job import main as run_job
from quantizers.protocol import Job, Output, Result, Variant
from quantpress.catalog.schema import CalibrationLine
from quantpress.errors import QuantpressError
from quantpress.evaluation.base import BaseCache, Baseline
from quantpress.evaluation.text import EvaluationText
from quantpress.files import sha256_of, sums_of
from quantpress.localhub.server import running_hub
from quantpress.machine.child import keep
from quantpress.machine.workspace import Workspace
from quantpress.plan.steps import Step, VariantPlan
from quantpress.press import stages
from quantpress.press.bench import Bench
from quantpress.press.refresh import retrieve
from quantpress.press.stages import Made
from quantpress.record.manifest import File
from quantpress.settings import Settings
from quantpress.source.source import Source, SourceFile, fetch
from tests.support import samples

FILE, WEIGHTS = "Tiny-Q8_0.gguf", b"weights " * 1000
BROKEN = WEIGHTS[:-8] + b"\0" * 8  # of the same size, as a power loss can leave it


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    text = EvaluationText("t", tmp_path / "text", "0" * 64)
    return Bench(
        source=Source(samples.source(), {}, ()),
        settings=Settings(home=tmp_path),
        workspace=Workspace(tmp_path, "maker/Tiny", samples.SHA),
        calibration=text,
        amount=CalibrationLine(samples=2, length=128),
        text=text,
        protocol=samples.PROTOCOL,
        gates={},
        device="cpu",
        threads=1,
        bases=BaseCache(tmp_path / "bases", 0),
    )


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The steps of the child processes that were started. They do not run, because quantizing takes minutes."""
    started: list[str] = []

    def run_child(module: str, job: Any, result: type[Any], folder: Path, limits: Any) -> Any:
        started.append(job.step if isinstance(job, Job) else "evaluate")
        if not isinstance(job, Job):
            keep(job, samples.evaluation(16.2, 0.001), folder)
            return samples.evaluation(16.2, 0.001)
        return Result(output=None, seconds=1.0, peak_memory_bytes=1)

    monkeypatch.setattr(stages, "run_child", run_child)
    return started


def planned() -> VariantPlan:
    recipe = samples.entry("gguf", "Q8_0", bits=8.5, divergence=0.001).recipe
    step = Step(model="maker/Tiny", format="gguf", variant="Q8_0", repo_id="press/T", action="press", reason="")
    return VariantPlan(Variant(format="gguf", name="Q8_0"), recipe, step)


def made_before(bench: Bench, content: bytes = WEIGHTS) -> Path:
    """Leaves what a press leaves that is killed after it made the variant. Returns the variant's file."""
    each = planned()
    job = stages.job_of(bench, "quantize", each.variant, each.recipe)
    job.out.mkdir(parents=True, exist_ok=True)
    (job.out / FILE).write_bytes(content)
    output = Output(files=[FILE], bits_per_weight=8.5, tensor_types={})
    result = Result(output=output, seconds=1.0, peak_memory_bytes=1, sums=sums_of(job.out, [FILE]))
    keep(job, result, bench.workspace.variant(each.recipe))
    return job.out / FILE


def test_a_variant_that_is_as_it_was_made_is_not_made_again(bench: Bench, children: list[str]) -> None:
    file = made_before(bench)
    assert stages.quantize(bench, planned()).files == file.parent
    assert children == []


@pytest.mark.parametrize("content", [BROKEN, WEIGHTS[:100], b""], ids=["changed", "cut short", "empty"])
def test_a_variant_whose_bytes_changed_is_made_again(bench: Bench, children: list[str], content: bytes) -> None:
    made_before(bench).write_bytes(content)
    stages.quantize(bench, planned())
    assert children == ["quantize"]


def test_figures_of_other_bytes_are_measured_again(bench: Bench, children: list[str], tmp_path: Path) -> None:
    base = Baseline(samples.evaluation(16.1), tmp_path / "logits.bin")
    for content in (WEIGHTS, WEIGHTS, BROKEN):  # the third press made the variant again, with other bytes
        made_before(bench, content)
        stages.evaluate(bench, planned(), stages.quantize(bench, planned()), base)
    assert children == ["evaluate", "evaluate"]


def test_a_variant_that_changed_after_it_was_measured_is_not_published(bench: Bench, tmp_path: Path) -> None:
    file = made_before(bench)
    made: Made = stages.quantize(bench, planned())
    file.write_bytes(BROKEN)
    base = Baseline(samples.evaluation(16.1), tmp_path / "logits.bin")
    with pytest.raises(QuantpressError, match=f"{FILE}: changed on the disk after it was made; run again"):
        stages.gate(bench, planned(), made, samples.evaluation(16.2, 0.001), base)


def test_a_prepared_file_that_changed_is_made_again(bench: Bench, children: list[str]) -> None:
    each = planned()
    job = stages.job_of(bench, "prepare", each.variant, each.recipe)
    job.prepared.mkdir(parents=True)
    for name in ("Tiny.imatrix.gguf", "Tiny-F16.gguf"):
        (job.prepared / name).write_bytes(WEIGHTS)
    result = Result(output=None, seconds=1.0, peak_memory_bytes=1, sums=sums_of(job.prepared))
    keep(job, result, bench.workspace.prepared(each.recipe).with_suffix(".job"))

    stages.prepare(bench, each.variant, each.recipe, lambda _: None)
    assert children == []
    (job.prepared / "Tiny.imatrix.gguf").write_bytes(BROKEN)
    stages.prepare(bench, each.variant, each.recipe, lambda _: None)
    assert children == ["prepare"]
    assert [path.name for path in job.prepared.iterdir()] == ["Tiny-F16.gguf"]


def test_a_child_notes_the_hashes_of_what_it_made(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Writer:
        """A format that writes one file. A real one takes minutes."""

        def quantize(self, job: Job) -> Output:
            (job.out / FILE).write_bytes(WEIGHTS)
            (job.out / "notes.log").write_bytes(b"")
            return Output(files=[FILE], bits_per_weight=8.5, tensor_types={})

    monkeypatch.setattr("quantizers.job.quantizer_of", lambda _: Writer())
    each = planned()
    (tmp_path / "job.json").write_text(stages.job_of(bench, "quantize", each.variant, each.recipe).model_dump_json())
    run_job(tmp_path / "job.json", tmp_path / "result.json")
    result = Result.model_validate_json((tmp_path / "result.json").read_bytes())
    assert result.sums == {FILE: "89e13a94981ddc68d5fc6c558b2f7aa697a9fcdddecf01c864564a84100c968b"}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HfApi]:
    with running_hub(tmp_path_factory.mktemp("hub")) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.create_token("press", "write"))
        api.create_repo("press/T")
        for name in (FILE, "config.json"):
            api.upload_file(repo_id="press/T", path_in_repo=name, path_or_fileobj=WEIGHTS)
        yield api


def test_a_published_file_gets_its_name_only_after_its_check(
    hub: HfApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A press that is killed during the check leaves nothing that the next press takes for checked."""

    def killed(path: Path) -> str:
        raise KeyboardInterrupt

    file = File(path=FILE, size=len(WEIGHTS), sha256="0" * 64)
    monkeypatch.setattr("quantpress.press.refresh.sha256_of", killed)
    with pytest.raises(KeyboardInterrupt):
        retrieve(hub, "press/T", "main", [file], tmp_path / "published")
    assert not (tmp_path / "published" / FILE).exists()


def test_a_published_file_that_was_kept_and_changed_is_fetched_again(hub: HfApi, tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.write_bytes(WEIGHTS)
    file = File(path=FILE, size=len(WEIGHTS), sha256=sha256_of(good))
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / FILE).write_bytes(BROKEN)
    retrieve(hub, "press/T", "main", [file], tmp_path / "published")
    assert [path.name for path in (tmp_path / "published").iterdir()] == [FILE]
    assert (tmp_path / "published" / FILE).read_bytes() == WEIGHTS


def test_a_source_that_was_kept_and_changed_is_fetched_again_at_once(hub: HfApi, tmp_path: Path) -> None:
    commit = hub.model_info("press/T").sha
    assert commit is not None
    record = samples.source().model_copy(update={"repo": "press/T", "sha": commit})
    files = tuple(
        SourceFile(each.path, each.size, each.lfs.sha256 if each.lfs else None, each.blob_id)
        for each in hub.list_repo_tree("press/T")
        if isinstance(each, RepoFile) and each.path in (FILE, "config.json")
    )
    source, folder = Source(record, {}, files), tmp_path / "source"
    fetch(hub, source, folder)
    abandoned = folder / ".cache" / "huggingface" / "download" / "x.0123abcd.incomplete"
    abandoned.write_bytes(WEIGHTS[:100])
    for name in (FILE, "config.json"):
        (folder / name).write_bytes(BROKEN)
    fetch(hub, source, folder)
    assert [(folder / name).read_bytes() for name in (FILE, "config.json")] == [WEIGHTS, WEIGHTS]
    assert not abandoned.exists()
