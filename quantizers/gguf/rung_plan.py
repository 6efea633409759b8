"""Plans, before anything is quantized, which rungs (GGUF variants) a model gets, which type each tensor has, and how
each file is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quantizers.gguf.dry_run import DryRun, PlannedTensor, data_bytes, dry_run
from quantizers.gguf.ggml import Ggml, library_of
from quantizers.gguf.importance import ImatrixNote, Importance, read_importance
from quantizers.gguf.ladder import CLIENTS_DEFAULT, RUNGS, Rung
from quantizers.gguf.llama_quantize import file_types
from quantizers.gguf.metadata import opened, padded
from quantpress.errors import BadInput, Refused
from quantpress.toolchain.llama_cpp import LlamaCpp

#: The types that llama-quantize can quantize. It converts them to float32 first. It can only copy other types.
_UNQUANTIZED = {"F32", "F16", "BF16"}
#: Types that llama-quantize can refuse to make for a tensor without imatrix weights. It refuses Q2_K only in some
#: files.
_LOW_BITS = ("IQ1", "IQ2", "IQ3", "Q2_K")
#: If the imatrix weights of one of these tensors have a wrong size, llama-quantize ignores them. For these tensors and
#: for ``output.weight``, llama-quantize also accepts an imatrix that has no weights for the tensor.
_EMBEDDINGS = {"token_embd.weight", "per_layer_token_embd.weight"}


@dataclass(frozen=True)
class RungPlan:
    """How a rung is made for one model.

    ``refusal`` says why llama.cpp cannot make the rung for this model. Usually the one-pass engine
    (:mod:`quantizers.gguf.one_pass`) makes the file. ``by_llama_quantize`` says why this engine cannot make the file,
    so that llama-quantize must make it. ``same_bytes_as`` names another planned rung in which every tensor has the same
    type. The files of the two rungs would differ only in ``general.file_type``. ``file_bytes`` is exact for rungs that
    the one-pass engine makes. For rungs that llama-quantize makes, ``file_bytes`` can be some hundred bytes of metadata
    too small. ``tensors`` are in the file's order. If the rung is refused, ``tensors`` is empty.
    """

    rung: str
    tensors: tuple[PlannedTensor, ...] = ()
    file_type: int = 0
    fallbacks: int = 0
    file_bytes: int = 0
    same_bytes_as: str | None = None
    refusal: str | None = None
    by_llama_quantize: str | None = None

    @property
    def bits_per_weight(self) -> float:
        weights = sum(tensor.elements for tensor in self.tensors)
        return 8 * sum(data_bytes(tensor, tensor.target) for tensor in self.tensors) / weights


def plan_rungs(
    tools: LlamaCpp, model: Path, imatrix: Path | None, rungs: Sequence[str], standing: Sequence[str] = ()
) -> list[RungPlan]:
    """Returns one plan per rung, in the order of ``rungs``. The plans come from dry runs of llama-quantize over the
    unquantized GGUF ``model``.

    The ``standing`` rungs have their files already. If several rungs would have the same tensor types, a standing rung
    keeps its file.

    Raises :class:`BadInput` when ``imatrix`` is not an imatrix or lies in another folder than ``model``, and
    ``QuantpressError`` when a dry run is not understood.
    """
    if imatrix is not None and imatrix.parent.resolve() != model.parent.resolve():
        raise BadInput(
            f"{imatrix} must lie in the folder of {model}: llama-quantize stores the imatrix's path as it is given"
        )
    importance = read_importance(imatrix) if imatrix else None
    known = file_types(tools)
    ggml, obstacle = load(tools)
    plans = [_plan(tools, model, imatrix, RUNGS[name], known) for name in rungs]
    plans = [replace(plan, by_llama_quantize=obstacle or _beyond(ggml, plan, importance)) for plan in plans]
    sized = _with_sizes(ggml, model, importance.note if importance else None, plans)
    return _with_same_bytes(sized, standing)


def load(tools: LlamaCpp) -> tuple[Ggml | None, str | None]:
    """Returns ggml's library of ``tools`` and None, or None and the reason why the library cannot be used."""
    file = library_of(tools)
    if file is None:
        return None, f"no libggml-base lies beside {tools.quantize.name}: it was built without shared libraries"
    try:
        return Ggml(file), None
    except (OSError, AttributeError) as error:
        return None, f"{file.name} cannot be used: {error}"


def _plan(tools: LlamaCpp, model: Path, imatrix: Path | None, rung: Rung, known: dict[str, int]) -> RungPlan:
    if rung.type not in known:
        return RungPlan(rung.name, refusal=f"this llama-quantize knows no type {rung.type}")
    try:
        run = dry_run(tools, model, imatrix, rung)
    except Refused as refused:
        return RungPlan(rung.name, refusal=str(refused))
    refusal = _refusal(run, rung, imatrix is not None)
    if refusal:
        return RungPlan(rung.name, refusal=refusal)
    return RungPlan(rung.name, run.tensors, known[rung.type], run.fallbacks)


def _refusal(run: DryRun, rung: Rung, weighted: bool) -> str | None:
    """Returns why llama-quantize would fail or abort midway, or None if it would succeed. The dry run does not say
    this."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if run.needs_imatrix and not weighted:
        return f"{rung.name} needs an imatrix"
    for tensor in run.tensors:
        block = GGML_QUANT_SIZES[GGMLQuantizationType[tensor.target]][0]
        if tensor.shape[0] % block:
            return f"{tensor.name} has rows of {tensor.shape[0]}: {tensor.target} needs a multiple of {block}"
        if tensor.target != tensor.source and tensor.source not in _UNQUANTIZED:
            return f"{tensor.name} is {tensor.source} already: it would be quantized twice"
    return None


def _beyond(ggml: Ggml | None, plan: RungPlan, importance: Importance | None) -> str | None:
    """Returns why the one-pass engine cannot make the file that llama-quantize would make, or None if the engine
    can."""
    for tensor in plan.tensors:
        unknown = [] if ggml is None else [name for name in (tensor.source, tensor.target) if name not in ggml.types]
        if unknown:
            return f"ggml's library and the gguf package do not both know type {unknown[0]}"
        if tensor.target == tensor.source:
            continue
        if tensor.shape[3] != 1:
            return f"{tensor.name} has four dimensions"
        if importance is None or tensor.name in _EMBEDDINGS:
            continue
        weights = importance.weights.get(tensor.name)
        if weights is None and tensor.name != "output.weight" and tensor.target.startswith(_LOW_BITS):
            return f"the imatrix has nothing for {tensor.name}, which would be {tensor.target}"
        if weights is not None and weights.size != tensor.shape[0] * tensor.shape[2]:
            return f"the imatrix is for another shape of {tensor.name}"
    return None


def _with_sizes(ggml: Ggml | None, model: Path, note: ImatrixNote | None, plans: list[RungPlan]) -> list[RungPlan]:
    made = [plan for plan in plans if not plan.refusal]
    if not made:
        return plans
    tensors = made[0].tensors
    head_bytes = model.stat().st_size - sum(padded(data_bytes(tensor, tensor.source)) for tensor in tensors)
    split = False
    if ggml is not None:
        with opened(ggml, model) as source:
            split = source.split
            by_engine = [plan for plan in made if plan.by_llama_quantize is None]
            if by_engine:
                # The head of every rung has this size, because the types and numbers in a head have a fixed width.
                head_bytes = len(source.head(by_engine[0].tensors, by_engine[0].file_type, note).data)
    several = "the source is split into several files" if split else None
    return [
        plan
        if plan.refusal
        else replace(
            plan,
            file_bytes=head_bytes + sum(padded(data_bytes(tensor, tensor.target)) for tensor in plan.tensors),
            by_llama_quantize=plan.by_llama_quantize or several,
        )
        for plan in plans
    ]


def _with_same_bytes(plans: list[RungPlan], standing: Sequence[str]) -> list[RungPlan]:
    """Groups plans that have the same tensor types. One plan of each group keeps its file. The other plans name it in
    ``same_bytes_as``.

    These rules choose the plan, in this order. A standing rung, whose file is there already, comes first. The rung that
    clients load by default comes next. A plain type of llama-quantize comes before a type with options. If several
    plans are still equal, the plan whose name promises the number of bits closest to the real number comes first.
    """

    def preference(plan: RungPlan) -> tuple[bool, bool, bool, float]:
        rung = RUNGS[plan.rung]
        promised = abs(rung.nominal_bits - plan.bits_per_weight)
        return plan.rung not in standing, plan.rung != CLIENTS_DEFAULT, not rung.plain, promised

    groups: dict[tuple[PlannedTensor, ...], list[RungPlan]] = {}
    for plan in plans:
        if not plan.refusal:
            groups.setdefault(plan.tensors, []).append(plan)
    kept = {tensors: min(group, key=preference).rung for tensors, group in groups.items()}
    return [
        plan if plan.refusal or kept[plan.tensors] == plan.rung else replace(plan, same_bytes_as=kept[plan.tensors])
        for plan in plans
    ]
