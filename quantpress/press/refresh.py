"""Fetches published files back: variants that are renewed or measured again, and costly shared files."""

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
    """Why a published variant must be quantized: its weights are not what the source holds now."""

    reason: str


def retrieve(api: HfApi, repo_id: str, revision: str, files: list[File], folder: Path) -> Path:
    """Downloads published files into ``folder``. Raises :class:`QuantpressError` for a file that differs from the
    manifest."""
    with explained(api.endpoint, f"downloading from {repo_id}"):
        for file in files:
            path = Path(api.hf_hub_download(repo_id, file.path, revision=revision, local_dir=folder))
            if path.stat().st_size != file.size or sha256_of(path) != file.sha256:
                path.unlink()
                raise QuantpressError(f"{repo_id}@{revision}: {file.path} is not what its manifest says: verify it")
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's own notes
    return folder


def keeps_costly(plan: FormatPlan) -> bool:
    """Whether the published shared files that are costly to make stay as they are, even if they were made from another
    commit of the source. They stay if nothing is quantized with them.

    The recipe of a variant that is quantized names one commit for everything. For such a variant they are made again.
    """
    return not plan.to_press and not _made_by_recipe(plan)


def retrieve_costly(api: HfApi, plan: FormatPlan, job: Job) -> None:
    """Downloads published shared files that are costly to make to where ``prepare`` finds them: to ``job.published`` if
    they are kept (:func:`keeps_costly`), to ``job.prepared`` if they are what ``prepare`` would make."""
    main, head = plan.shelf.manifests.get("main"), plan.shelf.heads.get("main")
    folder = job.published or job.prepared
    names = quantizer_of(job.variant).costly_files(job.model_name)
    if main is None or head is None or all((folder / name).exists() for name in names):
        return
    if job.published is not None or _made_by_recipe(plan):
        retrieve(api, plan.repo_id, head, [file for file in main.shared if file.path in names], folder)


def _made_by_recipe(plan: FormatPlan) -> bool:
    """Whether the published shared files are what ``prepare`` would make: a variant with the same preparation was
    quantized with them. A variant that only got new metadata was quantized with the files of an earlier commit."""
    main = plan.shelf.manifests.get("main")
    wanted = {planned.recipe.preparation_fingerprint for planned in plan.to_make}
    return main is not None and any(
        entry.recipe.preparation_fingerprint in wanted and WEIGHTS_FROM not in entry.artifact.details
        for entry in main.entries
    )


def refresh(bench: Bench, planned: VariantPlan, published: stages.Made, weights_from: str) -> stages.Made | Stale:
    """Gives the files of a published variant the source's current metadata. ``weights_from`` is the source commit that
    they were made from before. If the source now holds other tensors, makes nothing and returns :class:`Stale`."""
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
    """Downloads a published variant's files into the workspace and returns them as if they had just been made. So the
    variant need not be quantized again.

    Raises :class:`~quantpress.errors.QuantpressError` for a file that differs from the manifest.
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
