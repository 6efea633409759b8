"""The stages that make, measure and judge variants. Each stage is a function from typed input to typed output.

A bench holds what the stages share, such as source, settings and folders. Heavy work runs in child processes
(:mod:`quantpress.machine.child`). If an earlier run finished a job, this run finds the job's file and result on the
disk and does not repeat the job. This is so even if the earlier run was killed later.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quantizers import quantizer, quantizer_of
from quantizers.protocol import CalibrationText, Job, Result, Variant
from quantizers.traits import traits_of
from quantizers.wave import WaveJob, WaveResult
from quantpress.errors import QuantpressError
from quantpress.evaluation.base import BaseKey, Baseline
from quantpress.evaluation.job import EvaluationJob
from quantpress.evaluation.tensors import TensorsJob, TensorsReport
from quantpress.files import changed, sha256_of
from quantpress.gate.judge import judge
from quantpress.gate.limits import limit_of
from quantpress.machine.child import begin, begun, finished, run_child
from quantpress.plan.steps import VariantPlan
from quantpress.press.bench import Bench
from quantpress.press.deadlines import limits
from quantpress.press.unquantized import dequantize, origin, plain_source, source_for
from quantpress.record.manifest import Artifact, Entry, File
from quantpress.record.measurement import Engine, Evaluation
from quantpress.record.names import model_name
from quantpress.record.recipe import Recipe, fingerprint_of
from quantpress.source.weights import WeightsJob, WeightsReport


@dataclass(frozen=True)
class Made:
    """A quantized variant on disk. ``files`` is the folder with the files that ``result.output.files`` names."""

    files: Path
    result: Result


def check_source(bench: Bench) -> TensorsReport:
    """Checks the source once, before any format begins. Raises :class:`ChildFailed`, with the reason, if a file is
    truncated, the model's class needs a tensor that is in no file, or a weight is NaN.

    The tensors come first, because only the headers are read for them. A source in FP8 blocks is dequantized before
    that, because transformers dequantizes only widths that the blocks divide.
    """
    source, work = bench.workspace.source, bench.workspace.work
    tensors = TensorsJob(source=dequantize(source, bench.source.config, work, limits(bench)).resolve())
    report = finished(tensors, TensorsReport, work / "tensors") or run_child(
        "quantpress.evaluation.tensors", tensors, TensorsReport, work / "tensors", limits(bench)
    )
    weights = WeightsJob(source=source.resolve())
    if finished(weights, WeightsReport, work / "weights") is None:
        run_child("quantpress.source.weights", weights, WeightsReport, work / "weights", limits(bench))
    return report


def measure_base(bench: Bench) -> Baseline:
    """Measures the unquantized model with transformers. Keeps the model's log-probabilities (the base), because every
    engine measures a variant's divergence from them."""
    folder = bench.workspace.baseline("transformers", fingerprint_of(bench.protocol.model_dump(mode="json")))
    key = BaseKey(sha=bench.workspace.sha, protocol=bench.protocol, engine="transformers", device=bench.device)

    def measure(logits: Path) -> Evaluation:
        plain = plain_source(bench.workspace.source, bench.source.config, bench.workspace.work)
        job = _evaluation(bench, "transformers", plain)
        job = job.model_copy(update={"save_logits": logits.resolve()})
        return run_child("quantpress.evaluation.job", job, Evaluation, folder, limits(bench))

    return bench.bases.take(key, folder / "base", measure)


def evaluate_unquantized(bench: Bench, engine: Engine, model: Path, base: Baseline) -> Baseline:
    """Measures the unquantized model with another engine, against the base (what transformers measured).

    The model is the same, so the divergence shows how much the two engines differ.
    """
    folder = bench.workspace.baseline(engine, fingerprint_of(bench.protocol.model_dump(mode="json")))
    job = _evaluation(bench, engine, model, base)
    evaluation = finished(job, Evaluation, folder) or run_child(
        "quantpress.evaluation.job", job, Evaluation, folder, limits(bench)
    )
    return Baseline(evaluation, base.logits)


def check(bench: Bench, variant: Variant, recipe: Recipe) -> None:
    """Checks whether the format can be made from the fetched source. Raises :class:`ChildFailed` with the reason if the
    format cannot be made."""
    job = job_of(bench, "check", variant, recipe).model_copy(update={"evaluation_text": bench.text.path.resolve()})
    folder = bench.workspace.prepared(recipe).with_suffix(".check")
    if finished(job, Result, folder) is None:
        run_child("quantizers.job", job, Result, folder, limits(bench, variant))


def prepare(
    bench: Bench, variant: Variant, recipe: Recipe, retrieve: Callable[[Job], None], *, keeps_costly: bool = False
) -> Job:
    """Makes what all variants of a format share. Returns the job, whose ``prepared`` folder is now filled.

    The quantizer continues from the files in this folder: files left by an equal job that was killed, and files that
    ``retrieve`` downloads. Costly files are shared files that take long to make, such as an imatrix. If
    ``keeps_costly`` is true, ``retrieve`` downloads published costly files of another commit into ``job.published``,
    and the quantizer does not make these files again. There is one exception. If an earlier run already began to make
    the costly files, the quantizer continues that job and does not use the published files. That job makes the files
    from the commit that the recipe names, so they are right for every variant.
    """
    job, folder = job_of(bench, "prepare", variant, recipe), bench.workspace.prepared(recipe).with_suffix(".job")
    if keeps_costly and not begun(job, folder):
        published = bench.workspace.prepared(recipe).with_suffix(".published")
        job = job.model_copy(update={"published": published.resolve()})
    before = finished(job, Result, folder)
    damaged = changed(job.prepared, before.sums) if before is not None else []
    for name in damaged:
        (job.prepared / name).unlink(missing_ok=True)  # the quantizer makes what is missing
    if before is None or damaged:
        if not begun(job, folder):
            shutil.rmtree(job.prepared, ignore_errors=True)
        retrieve(job)
        run_child("quantizers.job", job, Result, folder, limits(bench, variant))
    return job


def quantize(bench: Bench, planned: VariantPlan) -> Made:
    """Makes one variant's files, unless an earlier run made them."""
    made = _made_before(bench, planned)
    if made is not None:
        return made
    job, folder = job_of(bench, "quantize", planned.variant, planned.recipe), bench.workspace.variant(planned.recipe)
    _leave_what_goes_on(job, folder)
    return Made(job.out, run_child("quantizers.job", job, Result, folder, limits(bench, planned.variant)))


def quantize_wave(bench: Bench, wave: list[VariantPlan]) -> list[Made]:
    """Makes the variants of a wave (variants that lie on the disk together) with one child process. Returns them in the
    order of ``wave``. Variants that an earlier run made are not made again."""
    made = {planned.variant.name: _made_before(bench, planned) for planned in wave}
    rest = [planned for planned in wave if made[planned.variant.name] is None]
    if rest:
        made.update(zip([planned.variant.name for planned in rest], _quantize_at_once(bench, rest), strict=True))
    return [found for found in made.values() if found is not None]


def _quantize_at_once(bench: Bench, wave: list[VariantPlan]) -> list[Made]:
    """Makes all variants of a wave with one child process.

    If the child fails, raises :class:`ChildFailed`. The variants that were made before the failure stay on the disk,
    where the next call finds them.
    """
    jobs = [job_of(bench, "quantize", planned.variant, planned.recipe) for planned in wave]
    for planned, job in zip(wave, jobs, strict=True):
        folder = bench.workspace.variant(planned.recipe)
        _leave_what_goes_on(job, folder)
        begin(job, folder)
    folder = bench.workspace.wave([planned.recipe for planned in wave])
    most = limits(bench, *(planned.variant for planned in wave))
    found = run_child("quantizers.wave", WaveJob(jobs=jobs), WaveResult, folder, most)
    return [Made(job.out, result) for job, result in zip(jobs, found.results, strict=True)]


def _leave_what_goes_on(job: Job, folder: Path) -> None:
    """Removes the files in ``job.out``, unless the quantizer can continue from the files that an equal job left
    there."""
    if not (quantizer(job.variant.format).continues and begun(job, folder)):
        shutil.rmtree(job.out, ignore_errors=True)


def left_on_disk(bench: Bench, planned: VariantPlan) -> bool:
    """Whether files of the variant lie on the disk. A run left them there if it was killed before it published them."""
    return any((bench.workspace.variant(planned.recipe) / "files").glob("*"))


def _made_before(bench: Bench, planned: VariantPlan) -> Made | None:
    job = job_of(bench, "quantize", planned.variant, planned.recipe)
    result = finished(job, Result, bench.workspace.variant(planned.recipe))
    return Made(job.out, result) if result is not None and _all_there(job.out, result) else None


def evaluate(bench: Bench, planned: VariantPlan, made: Made, baseline: Baseline) -> Evaluation:
    """Measures a variant's perplexity, and its divergence from the log-probabilities that transformers gave for the
    unquantized model. Figures that an earlier run measured count only if they are of the same bytes."""
    assert made.result.output is not None
    chosen = quantizer_of(planned.variant)
    model = traits_of(chosen).model_path(made.files, made.result.output.files)
    job = _evaluation(bench, chosen.engine, model, baseline)
    folder = bench.workspace.variant(planned.recipe) / f"evaluation-{fingerprint_of(dict(made.result.sums))[:12]}"
    return finished(job, Evaluation, folder) or run_child(
        "quantpress.evaluation.job", job, Evaluation, folder, limits(bench, planned.variant)
    )


def _evaluation(bench: Bench, engine: Engine, model: Path, base: Baseline | None = None) -> EvaluationJob:
    return EvaluationJob(
        engine=engine,
        model=model.resolve(),
        protocol=bench.protocol,
        text=bench.text.path.resolve(),
        base_logits=base.logits.resolve() if base else None,
        threads=bench.threads,
        device=bench.device,
    )


def gate(bench: Bench, planned: VariantPlan, made: Made, evaluation: Evaluation, baseline: Baseline) -> Entry:
    """Judges a variant's figures, and returns the variant's entry for the manifest."""
    output = made.result.output
    assert output is not None
    files = [describe(made.files / name) for name in output.files]
    for name, file in zip(output.files, files, strict=True):
        if file.sha256 != made.result.sums.get(name, file.sha256):
            raise QuantpressError(f"{made.files / name}: changed on the disk after it was made; run again")
    verdict = judge(evaluation, baseline.evaluation, limit_of(planned.variant, bench.gates))
    return Entry(
        recipe=planned.recipe,
        fingerprint=planned.recipe.fingerprint,
        branch=planned.variant.branch,
        status="published" if verdict.passed else "withheld",
        artifact=Artifact(
            files=files,
            bits_per_weight=output.bits_per_weight,
            tensor_types=output.tensor_types,
            details=output.details | origin(bench.source.config),
        ),
        evaluation=evaluation,
        verdict=verdict,
        seconds=made.result.seconds,
        peak_memory_bytes=made.result.peak_memory_bytes,
        peak_device_memory_bytes=made.result.peak_device_memory_bytes,
    )


def describe(path: Path) -> File:
    """Returns the manifest's record of a file: name, size and hash."""
    return File(path=path.name, size=path.stat().st_size, sha256=sha256_of(path))


def _all_there(folder: Path, result: Result) -> bool:
    """Whether the files that the result names are in the folder, with the bytes that they had when they were made."""
    named = result.output is not None and set(result.output.files) == set(result.sums)
    return named and not changed(folder, result.sums)


def job_of(
    bench: Bench, step: Literal["check", "prepare", "quantize", "refresh"], variant: Variant, recipe: Recipe
) -> Job:
    """Returns the job that asks a quantizer to carry out ``step`` for a variant."""
    workspace = bench.workspace
    source = source_for(quantizer_of(variant), workspace.source, bench.source.config, workspace.work)
    return Job(
        step=step,
        variant=variant,
        model_name=model_name(recipe.source),
        source=source.resolve(),
        prepared=bench.workspace.prepared(recipe).resolve(),
        out=(bench.workspace.variant(recipe) / "files").resolve(),
        calibration=CalibrationText(
            name=bench.calibration.name,
            path=bench.calibration.path.resolve(),
            sha256=bench.calibration.sha256,
            samples=bench.amount.samples,
            length=bench.amount.length,
        ),
        threads=bench.threads,
        device=bench.device,
        split_above=bench.split_above,
    )
