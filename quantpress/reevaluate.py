"""A published variant whose protocol changed is measured again, without being quantized again.

Its files are downloaded and compared with the manifest; what is measured then passes the gate as a new variant does,
and the entry that comes out keeps recipe, files and cost of the quantization.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantizers.protocol import Output, Result
from quantpress import press
from quantpress.evaluation.base import Baseline
from quantpress.gate import judge
from quantpress.gate_limits import limit_of
from quantpress.manifest import Entry
from quantpress.plan import FormatPlan, VariantPlan
from quantpress.refresh import retrieve

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def fetch_published(api: HfApi, bench: press.Bench, plan: FormatPlan, planned: VariantPlan) -> press.Made:
    """A published variant's files in the workspace, as if they had just been made.

    Raises :class:`~quantpress.errors.QuantpressError` for a file that is not what the manifest says.
    """
    entry = _entry(plan, planned)
    folder = bench.workspace.variant(planned.recipe) / "published"
    retrieve(api, plan.repo_id, plan.published.heads[entry.branch], entry.artifact.files, folder)
    artifact = entry.artifact
    output = Output(
        files=[file.path for file in artifact.files],
        bits_per_weight=artifact.bits_per_weight,
        tensor_types=artifact.tensor_types,
        details=artifact.details,
    )
    result = Result(output=output, seconds=entry.seconds, peak_memory_bytes=entry.peak_memory_bytes)
    return press.Made(folder, result)


def reevaluate(api: HfApi, bench: press.Bench, plan: FormatPlan, planned: VariantPlan, base: Baseline) -> Entry:
    """Downloads a published variant, measures it under the bench's protocol and judges it; its new entry.

    ``base`` is the unquantized model's by the format's engine, or by transformers: the two agree
    (:func:`quantpress.gate.require_agreement`). Raises as :func:`fetch_published` does, and ``ChildFailed``.
    """
    made = fetch_published(api, bench, plan, planned)
    evaluation = press.evaluate(bench, planned, made, base)
    verdict = judge(evaluation, base.evaluation, limit_of(planned.variant.name, bench.gates))
    status = "published" if verdict.passed else "withheld"
    return _entry(plan, planned).model_copy(update={"evaluation": evaluation, "verdict": verdict, "status": status})


def _entry(plan: FormatPlan, planned: VariantPlan) -> Entry:
    entry = plan.published.entry(planned.variant.name, planned.variant.branch)
    assert entry is not None, f"{plan.repo_id} has no {planned.variant.name}"
    return entry
