"""Downloads published files to use them again: variants that get new metadata or are measured again, and costly files.

Costly files are shared by all variants of a format and take long to make, such as an imatrix.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantizers import quantizer_of
from quantizers.protocol import Job, Output, Result
from quantpress.errors import QuantpressError
from quantpress.files import changed, sha256_of
from quantpress.hub.client import explained
from quantpress.machine.child import finished, run_child
from quantpress.plan.steps import FormatPlan, VariantPlan
from quantpress.press import stages
from quantpress.press.bench import Bench
from quantpress.press.deadlines import limits
from quantpress.record.manifest import File

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: A variant that only got new metadata has this key in its artifact's details. The value is the source commit from
#: whose weights the variant was quantized.
WEIGHTS_FROM = "weights_from"


@dataclass(frozen=True)
class Stale:
    """Says that a published variant must be quantized again, because the source now holds other tensors. ``reason``
    says what has changed."""

    reason: str


def retrieve(api: HfApi, repo_id: str, revision: str, files: list[File], folder: Path) -> Path:
    """Downloads ``files`` of a repo into ``folder`` and returns ``folder``. Raises :class:`QuantpressError` if a file
    does not have the size and the hash that the manifest lists."""
    # A file is checked before it gets its name in ``folder``, because a killed press leaves what has its name, and the
    # next press takes that for checked.
    arriving = folder / ".arriving"
    with explained(api.endpoint, f"downloading from {repo_id}"):
        for file in files:
            if not changed(folder, {file.path: file.sha256}):
                continue
            path = Path(api.hf_hub_download(repo_id, file.path, revision=revision, local_dir=arriving))
            if path.stat().st_size != file.size or sha256_of(path) != file.sha256:
                path.unlink()
                raise QuantpressError(f"{repo_id}@{revision}: {file.path} is not what its manifest says: verify it")
            (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
            path.replace(folder / file.path)
    shutil.rmtree(arriving, ignore_errors=True)
    return folder


def keeps_costly(plan: FormatPlan) -> bool:
    """Whether the published costly files stay as they are, although they were made from another commit of the source.

    They stay if no variant is quantized. The recipe of a quantized variant names only one commit of the source. So, if
    a variant is quantized, its costly files must be made from this commit too.
    """
    return not plan.to_press and not _made_by_recipe(plan)


def retrieve_costly(api: HfApi, plan: FormatPlan, job: Job) -> None:
    """Downloads published costly files to the folder where ``prepare`` looks for them.

    If the files of another commit stay (:func:`keeps_costly`), the folder is ``job.published``. If the files are what
    ``prepare`` would make, the folder is ``job.prepared``. Otherwise, or if the files are there already, downloads
    nothing.
    """
    main, head = plan.shelf.manifests.get("main"), plan.shelf.heads.get("main")
    folder = job.published or job.prepared
    names = quantizer_of(job.variant).costly_files(job.model_name)
    if main is None or head is None or all((folder / name).exists() for name in names):
        return
    if job.published is not None or _made_by_recipe(plan):
        retrieve(api, plan.repo_id, head, [file for file in main.shared if file.path in names], folder)


def _made_by_recipe(plan: FormatPlan) -> bool:
    """Whether the published costly files are what ``prepare`` would make now.

    They are if a published variant with the same preparation was quantized with them. A variant that only got new
    metadata does not count, because it was quantized with the costly files of an earlier commit.
    """
    main = plan.shelf.manifests.get("main")
    wanted = {planned.recipe.preparation_fingerprint for planned in plan.to_make}
    return main is not None and any(
        entry.recipe.preparation_fingerprint in wanted and WEIGHTS_FROM not in entry.artifact.details
        for entry in main.entries
    )


def refresh(bench: Bench, planned: VariantPlan, published: stages.Made, weights_from: str) -> stages.Made | Stale:
    """Makes the files of a published variant again with the source's current metadata and the same weights.

    ``weights_from`` is the source commit of the published files. If the source now holds other tensors, makes nothing
    and returns :class:`Stale`.
    """
    folder = bench.workspace.variant(planned.recipe)
    job = stages.job_of(bench, "refresh", planned.variant, planned.recipe)
    job = job.model_copy(update={"published": published.files.resolve()})
    result = finished(job, Result, folder)
    if result is None or changed(job.out, result.sums):
        shutil.rmtree(job.out, ignore_errors=True)
        result = run_child("quantizers.job", job, Result, folder, limits(bench, planned.variant))
    if result.obstacle is not None:
        bench.workspace.remove_variant(planned.recipe)
        return Stale(result.obstacle)
    output = published.result.output
    assert output is not None
    files = sorted(path.name for path in job.out.iterdir())
    output = output.model_copy(update={"files": files, "details": {WEIGHTS_FROM: weights_from, **output.details}})
    return stages.Made(job.out, result.model_copy(update={"output": output}))


def fetch_published(api: HfApi, bench: Bench, plan: FormatPlan, planned: VariantPlan) -> stages.Made:
    """Downloads a published variant's files into the workspace. Returns the variant as if it had just been made, so
    that it need not be quantized again.

    Raises :class:`~quantpress.errors.QuantpressError` if a file differs from the manifest.
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
    result = Result(
        output=output,
        seconds=entry.seconds,
        peak_memory_bytes=entry.peak_memory_bytes,
        sums={file.path: file.sha256 for file in artifact.files},
    )
    return stages.Made(folder, result)
