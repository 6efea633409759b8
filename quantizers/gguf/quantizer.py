"""The ``gguf`` format. First it makes an unquantized GGUF and its imatrix, once per model. Then it makes all rungs
(GGUF variants) of a wave in one pass over the unquantized GGUF. A wave is a group of rungs that are made together."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from quantizers.gguf.ladder import DEFAULT, LADDERS, RUNGS, check_rung, unsuited
from quantizers.gguf.limits import LIMITS
from quantizers.gguf.unquantized import file_stem, made_from, storage_of, unquantized_file, unquantized_name
from quantizers.protocol import Job, Layout, Output, Parameters, Variant
from quantizers.traits import Traits
from quantpress.errors import QuantpressError, Refused
from quantpress.files import sha256_of, write_text

if TYPE_CHECKING:
    from quantizers.gguf.rung_plan import RungPlan


class GGUF:
    """Implements :class:`quantizers.protocol.Quantizer`."""

    format = "gguf"
    suffix = "GGUF"
    engine: Literal["llama.cpp", "transformers"] = "llama.cpp"
    continues = True
    traits = Traits(
        limits=LIMITS,
        core_seconds_per_weight=3.5e-7,
        toolchain="llama.cpp",
        is_one_file=True,
        renews_parts=False,
        fp8_source="read",
    )

    def ladders(self) -> dict[str, list[str]]:
        return {name: list(rungs) for name, rungs in LADDERS.items()}

    def default_variants(self, config: Parameters) -> list[str]:
        return list(DEFAULT)

    def variant(self, name: str, config: Parameters) -> Variant:
        check_rung(name)
        if reason := unsuited(name, config):
            raise Refused(reason)
        rung = RUNGS[name]
        return Variant(
            format=self.format,
            name=name,
            parameters={
                "type": rung.type,
                "options": list(rung.options),
                "from": made_from(config),
                "imatrix": True,
            },
            nominal_bits=rung.nominal_bits,
        )

    def check_name(self, name: str) -> None:
        check_rung(name)

    def version(self) -> str:
        from quantpress.toolchain.llama_cpp import planned_version

        return planned_version()

    def tools(self) -> dict[str, str]:
        from quantpress.toolchain.llama_cpp import planned_tools

        return planned_tools()

    def unquantized(self, job: Job) -> Path:
        return unquantized_file(job.prepared, job.model_name)

    def shared_files(self, job: Job) -> list[Path]:
        from quantizers.gguf.projector import projector_report

        shared = [imatrix_file(job.prepared, job.model_name), *sorted(ollama_folder(job.prepared).glob("*"))]
        projector = projector_report(job.prepared, job.model_name)
        return [*shared, job.prepared.resolve() / projector.file] if projector and projector.file else shared

    def costly_files(self, model_name: str) -> list[str]:
        return [imatrix_file(Path(), model_name).name]

    def check(self, job: Job) -> None:
        from quantizers.gguf.preflight import check_source
        from quantpress.toolchain.llama_cpp import install

        storage = storage_of(job.source, job.variant.parameters["from"])
        texts = {"the calibration text": job.calibration.path}
        if job.evaluation_text is not None:
            texts["the evaluation text"] = job.evaluation_text
        report = check_source(install(), job.source, job.model_name, storage, job.device, texts)
        write_text(engines_file(job.prepared), report.model_dump_json(indent=1))

    def prepare(self, job: Job) -> None:
        """Makes three things in ``job.prepared``: the unquantized GGUF, the imatrix (``{Model}.imatrix.gguf``) with its
        report, and the files for Ollama.

        If the model reads images or sound and the converter can convert its projector, ``prepare`` also makes
        ``mmproj-{Model}-F16.gguf``. If an earlier child process of the same job was killed, ``prepare`` continues from
        the files that this child left. A file with its final name is complete.
        """
        from quantizers.gguf.convert import convert
        from quantizers.gguf.imatrix import make_imatrix
        from quantizers.gguf.ollama.files import ollama_files
        from quantizers.gguf.projector import make_projector
        from quantpress.toolchain.llama_cpp import install
        from quantpress.toolchain.options import processor_options

        tools = install()
        storage = storage_of(job.source, job.variant.parameters["from"])
        model = job.prepared.resolve() / unquantized_name(job.model_name, storage)
        for left in job.prepared.glob(".*.tmp"):
            left.unlink()  # an incomplete file from a child that was killed
        if not model.exists():
            convert(tools, job.source, job.model_name, storage, model)
        make_projector(tools, job.source, job.prepared, job.model_name)
        for name, text in ollama_files(job.source).items():
            write_text(ollama_folder(job.prepared) / name, text)
        report = make_imatrix(
            tools,
            model,
            job.calibration,
            imatrix_file(job.prepared, job.model_name),
            processor_options(job.threads, job.device),
        )
        write_text(report_file(job.prepared, job.model_name), report.model_dump_json(indent=1) + "\n")

    def layout(self, job: Job, variants: list[Variant], standing: list[Variant], budget: int | None) -> Layout:
        """Divides the rungs into waves. To plan, it runs llama-quantize's dry run for each rung, which takes a tenth of
        a second per rung."""
        from quantizers.gguf.rung_plan import plan_rungs
        from quantizers.gguf.waves import cut_waves, disk_needed
        from quantpress.toolchain.llama_cpp import require

        model, imatrix = self.unquantized(job), imatrix_file(job.prepared, job.model_name)
        names, there = [variant.name for variant in variants], [variant.name for variant in standing]
        planned = plan_rungs(require(), model, imatrix, [*there, *names], there)
        plans = [plan for plan in planned if plan.rung in names]
        refused = {plan.rung: plan.refusal for plan in plans if plan.refusal}
        for plan in plans:
            if plan.refusal or plan.same_bytes_as or budget is None:
                continue
            if (needed := disk_needed([plan], job.split_above)) > budget:
                parts = ", together with the parts that the file is split into," if needed > plan.file_bytes else ""
                refused[plan.rung] = (
                    f"its file of {plan.file_bytes / 1e9:.2f} GB{parts} would take more than the disk budget"
                )
        aliases = {plan.rung: plan.same_bytes_as for plan in plans if plan.same_bytes_as}
        refused |= {name: refused[other] for name, other in aliases.items() if other in refused}
        aliases = {name: other for name, other in aliases.items() if name not in refused}
        made = [plan for plan in plans if plan.rung not in refused and plan.rung not in aliases]
        waves = [[plan.rung for plan in wave] for wave in cut_waves(made, budget, job.split_above)]
        return Layout(waves=waves, aliases=aliases, refused=refused)

    def refresh(self, job: Job) -> str | None:
        from quantizers.gguf.refresh import other_tensors, refresh_rung
        from quantpress.toolchain.llama_cpp import require

        assert job.published is not None
        model, files = self.unquantized(job), sorted(job.published.glob("*.gguf"))
        for path in files:
            if difference := other_tensors(model, path):
                return difference
        for path in files:
            refresh_rung(require(), model, path, job.out / path.name)
        return None

    def quantize(self, job: Job) -> Output:
        """Makes ``{Model}-{RUNG}.gguf`` in ``job.out``, as a wave of one rung. If the one-pass engine
        (:mod:`quantizers.gguf.one_pass`) cannot make the file, llama-quantize makes it."""
        (output,) = self.quantize_wave([job])
        return output

    def quantize_wave(self, jobs: list[Job]) -> Iterator[Output]:
        """Makes the files of all ``jobs`` in one pass over the model, byte for byte as llama-quantize makes them.

        A file with its final name is complete and is not made again. If the one-pass engine cannot make a file,
        llama-quantize makes it, and the output says why.
        """
        from quantizers.gguf.rung_plan import plan_rungs
        from quantpress.toolchain.llama_cpp import require

        first = jobs[0]
        model, imatrix = self.unquantized(first), imatrix_file(first.prepared, first.model_name)
        plans = plan_rungs(require(), model, imatrix, [job.variant.name for job in jobs])
        reasons = make_rungs(jobs, plans, model, imatrix)
        for job, plan in zip(jobs, plans, strict=True):
            yield _output(job, plan.fallbacks, reasons.get(plan.rung))


def make_rungs(jobs: list[Job], plans: list[RungPlan], model: Path, imatrix: Path) -> dict[str, str]:
    """Makes the missing files of a wave. Returns a dict with one item for each rung that llama-quantize makes. The key
    is the rung, and the value is the reason why the one-pass engine cannot make the rung.

    Raises :class:`Refused` for a rung that the model cannot have. Raises :class:`QuantpressError` if several rungs
    cannot be made together. The caller can then try each rung alone.
    """
    from quantizers.gguf.llama_quantize import quantize_alone
    from quantizers.gguf.one_pass import write_rungs
    from quantpress.toolchain.llama_cpp import require
    from quantpress.toolchain.progress import plain_lines

    tools, threads = require(), jobs[0].threads
    files = {job.variant.name: rung_file(job) for job in jobs}
    for plan in plans:
        if plan.refusal:
            raise Refused(plan.refusal)
        remove_halves(files[plan.rung].parent)
    reasons = {plan.rung: plan.by_llama_quantize for plan in plans if plan.by_llama_quantize is not None}
    together = [plan for plan in plans if plan.rung not in reasons and not files[plan.rung].exists()]
    try:
        if together:
            write_rungs(
                tools, model, imatrix, {files[plan.rung]: plan for plan in together}, threads, plain_lines(print)
            )
    except QuantpressError as error:
        if len(together) > 1:
            raise
        reasons[together[0].rung] = str(error)
    for rung in reasons:
        if not files[rung].exists():
            quantize_alone(tools, model, imatrix, RUNGS[rung], files[rung], threads)
    return reasons


def remove_halves(folder: Path) -> None:
    """Removes the incomplete files and the folders of unfinished parts that a killed child process left in
    ``folder``."""
    for left in folder.glob("*"):
        if left.is_dir():
            shutil.rmtree(left)
        elif left.name.endswith(".tmp"):
            left.unlink()


def _output(job: Job, fallbacks: int, by_llama_quantize: str | None) -> Output:
    from quantizers.gguf.engines import EnginesReport
    from quantizers.gguf.imatrix import ImatrixReport
    from quantizers.gguf.projector import projector_report
    from quantizers.gguf.split import split_above
    from quantizers.gguf.types import storage_types
    from quantpress.toolchain.llama_cpp import require

    file = rung_file(job)
    inside = storage_types(file)
    report = ImatrixReport.model_validate_json(report_file(job.prepared, job.model_name).read_bytes())
    imatrix = report.model_dump() | {"sha256": sha256_of(imatrix_file(job.prepared, job.model_name))}
    details = {"weights": inside.total_weights, "fallbacks": fallbacks, "imatrix": imatrix}
    if by_llama_quantize is not None:
        details["by_llama_quantize"] = by_llama_quantize
    if engines_file(job.prepared).exists():
        engines = EnginesReport.model_validate_json(engines_file(job.prepared).read_bytes())
        details |= {"engines": engines.model_dump()} if engines.differs else {}
    if projector := projector_report(job.prepared, job.model_name):
        details["projector"] = projector.model_dump()
    return Output(
        files=[part.name for part in split_above(require(), file, job.split_above)],
        bits_per_weight=inside.bits_per_weight,
        tensor_types=inside.weights,
        details=details,
    )


def rung_file(job: Job) -> Path:
    """Returns the path of a rung's file. The file's name contains the rung's name, because clients find a rung by this
    name."""
    return job.out.resolve() / f"{file_stem(job.model_name)}-{job.variant.name}.gguf"


def imatrix_file(prepared: Path, model_name: str) -> Path:
    """Returns the path of the imatrix. This file name keeps clients from mistaking the imatrix for a model."""
    return prepared.resolve() / f"{file_stem(model_name)}.imatrix.gguf"


def ollama_folder(prepared: Path) -> Path:
    """Returns the folder of the files that Ollama gets with a model
    (:func:`quantizers.gguf.ollama.files.ollama_files`)."""
    return prepared.resolve() / "ollama"


def report_file(prepared: Path, model_name: str) -> Path:
    """Returns the path of the imatrix's report, a JSON file (:class:`quantizers.gguf.imatrix.ImatrixReport`)."""
    return prepared.resolve() / f"{file_stem(model_name)}.imatrix.json"


def engines_file(prepared: Path) -> Path:
    """Returns the path of the comparison of the two engines (:class:`quantizers.gguf.engines.EnginesReport`). It lies
    beside ``prepared``, which is still empty when ``check`` runs."""
    return prepared.with_name(f"{prepared.name}.engines.json")
