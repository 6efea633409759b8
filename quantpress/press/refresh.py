"""What is published is fetched back: a variant to be given new metadata, and shared files that are costly to make."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantizers import quantizer_of
from quantizers.protocol import Job, Output, Result
from quantpress.errors import QuantpressError
from quantpress.files import sha256_of
from quantpress.hub.client import explained
from quantpress.machine.child import finished, run_child
from quantpress.plan.steps import FormatPlan, VariantPlan
from quantpress.press import stages
from quantpress.press.bench import Bench
from quantpress.record.manifest import File

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: In an artifact's details: the source commit whose weights a refreshed variant was quantized from.
WEIGHTS_FROM = "weights_from"


@dataclass(frozen=True)
class Stale:
    """A published variant whose weights are not what the source holds now, and why: it must be quantized."""

    reason: str


def retrieve(api: HfApi, repo_id: str, revision: str, files: list[File], folder: Path) -> Path:
    """Downloads published files into ``folder``. Raises :class:`QuantpressError` for one that is not what the manifest
    says."""
    with explained(api.endpoint, f"downloading from {repo_id}"):
        for file in files:
            path = Path(api.hf_hub_download(repo_id, file.path, revision=revision, local_dir=folder))
            if path.stat().st_size != file.size or sha256_of(path) != file.sha256:
                path.unlink()
                raise QuantpressError(f"{repo_id}@{revision}: {file.path} is not what its manifest says: verify it")
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's own notes
    return folder


def keeps_costly(plan: FormatPlan) -> bool:
    """Whether the published shared files that are costly to make stay as they are, whatever commit of the source they
    were made from: nothing is quantized by them.

    A variant that is quantized goes by its recipe, which names one commit for all: for it they are made anew.
    """
    return not plan.to_press and not _made_by_recipe(plan)


def retrieve_costly(api: HfApi, plan: FormatPlan, job: Job) -> None:
    """Puts published shared files that are costly to make where ``prepare`` finds them: into ``job.published`` where
    they are kept (:func:`keeps_costly`), into ``job.prepared`` where they are what it would make."""
    main, head = plan.shelf.manifests.get("main"), plan.shelf.heads.get("main")
    folder = job.published or job.prepared
    names = quantizer_of(job.variant).costly_files(job.model_name)
    if main is None or head is None or all((folder / name).exists() for name in names):
        return
    if job.published is not None or _made_by_recipe(plan):
        retrieve(api, plan.repo_id, head, [file for file in main.shared if file.path in names], folder)


def _made_by_recipe(plan: FormatPlan) -> bool:
    """Whether the published shared files are what ``prepare`` would make: a variant of the same recipe was quantized by
    them. One that was only given new metadata was quantized by those of an earlier commit."""
    main = plan.shelf.manifests.get("main")
    wanted = {planned.recipe.preparation_fingerprint for planned in plan.to_make}
    return main is not None and any(
        entry.recipe.preparation_fingerprint in wanted and WEIGHTS_FROM not in entry.artifact.details
        for entry in main.entries
    )


def refresh(bench: Bench, planned: VariantPlan, published: stages.Made, weights_from: str) -> stages.Made | Stale:
    """Gives the files of a published variant the source's metadata as it is now; ``weights_from`` is the source commit
    that they were made from before. Where the source holds other tensors now, nothing is made."""
    folder = bench.workspace.variant(planned.recipe)
    job = stages.job_of(bench, "refresh", planned.variant, planned.recipe)
    job = job.model_copy(update={"published": published.files.resolve()})
    result = finished(job, Result, folder)
    if result is None:
        shutil.rmtree(job.out, ignore_errors=True)
        result = run_child("quantizers.job", job, Result, folder)
    if result.obstacle is not None:
        bench.workspace.remove_variant(planned.recipe)
        return Stale(result.obstacle)
    output = published.result.output
    assert output is not None
    files = sorted(path.name for path in job.out.iterdir())
    output = output.model_copy(update={"files": files, "details": {WEIGHTS_FROM: weights_from, **output.details}})
    return stages.Made(job.out, result.model_copy(update={"output": output}))


def fetch_published(api: HfApi, bench: Bench, plan: FormatPlan, planned: VariantPlan) -> stages.Made:
    """A published variant's files in the workspace, as if they had just been made: to be measured again, without being
    quantized again.

    Raises :class:`~quantpress.errors.QuantpressError` for a file that is not what the manifest says.
    """
    entry = plan.shelf.entry(planned.variant.name, planned.variant.branch)
    assert entry is not None, f"{plan.repo_id} has no {planned.variant.name}"
    folder = bench.workspace.variant(planned.recipe) / "published"
    retrieve(api, plan.repo_id, plan.shelf.heads[entry.branch], entry.artifact.files, folder)
    artifact = entry.artifact
    output = Output(
        files=[file.path for file in artifact.files],
        bits_per_weight=artifact.bits_per_weight,
        tensor_types=artifact.tensor_types,
        details=artifact.details,
    )
    result = Result(output=output, seconds=entry.seconds, peak_memory_bytes=entry.peak_memory_bytes)
    return stages.Made(folder, result)
