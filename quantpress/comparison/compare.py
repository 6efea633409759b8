"""All formats and variants of one model, side by side: made from its repositories' manifests and nothing else.

Figures stand side by side only where they were measured under one protocol, from one commit of the source. What was
measured otherwise is listed apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from quantpress.errors import BadInput
from quantpress.evaluation import frontier as figures
from quantpress.record.base import Record
from quantpress.record.manifest import Entry, Manifest, SourceRecord
from quantpress.record.measurement import Evaluation, Protocol

#: Memory that machines have, in bytes: what is named in the answer to "which file for my memory?".
MEMORY_CLASSES = tuple(
    int(gigabytes * 1e9)
    for gigabytes in (0.125, 0.25, 0.5, 1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 80, 96, 128, 192, 256, 384, 512, 768)
)


class ComparedVariant(Record):
    """One published variant. Sizes and memory in bytes, divergence in nats per token, speed in tokens per second.

    ``seconds_to_make`` are the quantizer's; rungs that were made in one pass share theirs evenly. ``memory_bytes`` is
    the peak while it was measured on ``runner``, of the GPU where it ran on one. The last two say whether no other
    variant is as good at no more bytes of size, or of memory as the same engine took on that runner.
    """

    format: str
    variant: str
    repo_id: str
    branch: str
    engine: str
    size: int
    bits_per_weight: float
    seconds_to_make: float
    weights_bytes: int | None
    memory_bytes: int
    perplexity: float
    perplexity_error: float
    divergence: float | None
    divergence_error: float | None
    same_top: float | None
    non_finite: int
    prompt_tokens_per_second: float
    generation_tokens_per_second: float | None
    runner: str | None
    best_for_size: bool = False
    best_for_memory: bool = False

    @property
    def name(self) -> str:
        return _label(self.format, self.variant)


class OtherVariant(Record):
    """A published variant whose figures may not stand beside the others, and why."""

    format: str
    variant: str
    repo_id: str
    reason: str


class Choice(Record):
    """The variants closest to the unquantized model that were measured within ``memory_bytes``, one per engine and
    runner; the first is the closest of all."""

    memory_bytes: int
    best: list[ComparedVariant]


class ModelComparison(Record):
    """``variants`` by size, largest first; ``reference`` is the unquantized model under the same protocol."""

    model_name: str
    source: SourceRecord
    protocol: Protocol | None
    reference: Evaluation | None
    variants: list[ComparedVariant]
    others: list[OtherVariant]
    choices: list[Choice]


def compare_formats(manifests: Mapping[str, Manifest]) -> ModelComparison:
    """The comparison of one model from the manifests of its repos' ``main``, by repo id.

    Raises :class:`BadInput` where there is no manifest.
    """
    merged = merge(manifests)
    found = figures.compare(merged)
    names = {
        _label(manifest.format, entry.variant): (repo_id, entry) for repo_id, manifest, entry in _published(manifests)
    }
    distance = found.distance
    for_size = {entry.variant for entry in figures.frontier(found.entries, distance, figures.size)}
    for_memory = {entry.variant for each in figures.memory_frontiers(found.entries, distance) for entry in each}
    variants = [
        _variant(*names[entry.variant]).model_copy(
            update={"best_for_size": entry.variant in for_size, "best_for_memory": entry.variant in for_memory}
        )
        for entry in found.entries
    ]
    return ModelComparison(
        model_name=merged.model_name,
        source=merged.source,
        protocol=found.protocol,
        reference=found.reference,
        variants=variants,
        others=[
            OtherVariant(
                format=entry.recipe.format,
                variant=entry.variant,
                repo_id=repo_id,
                reason=_why_apart(entry, merged.source, found.protocol),
            )
            for repo_id, manifest, entry in _published(manifests)
            if _label(manifest.format, entry.variant) not in {each.variant for each in found.entries}
        ],
        choices=_choices(variants),
    )


def merge(manifests: Mapping[str, Manifest]) -> Manifest:
    """One manifest with the published entries of all repos that were made of the source commit that most of them were,
    each named by format and variant. Raises :class:`BadInput` where there is no manifest."""
    if not manifests:
        raise BadInput("no manifest to compare: press the model first")
    kept = Counter(entry.recipe.source_sha for _, _, entry in _published(manifests))
    first = next(iter(manifests.values()))
    sha = kept.most_common(1)[0][0] if kept else first.source.sha
    of_sha = [manifest for manifest in manifests.values() if manifest.source.sha == sha]
    # While the formats follow a moved source one by one, most variants may be of a commit that no manifest has now.
    known = [manifest.source for manifest in of_sha]
    known += [earlier.source for manifest in manifests.values() for earlier in manifest.earlier]
    source = next((each for each in known if each.sha == sha), first.source.model_copy(update={"sha": sha}))
    entries = [
        entry.model_copy(
            update={"recipe": entry.recipe.model_copy(update={"variant": _label(manifest.format, entry.variant)})}
        )
        for _, manifest, entry in _published(manifests)
        if entry.recipe.source_sha == sha
    ]
    return Manifest(
        format="all formats",
        model_name=first.model_name,
        source=source,
        toolchain={},
        baselines=[baseline for manifest in of_sha for baseline in manifest.baselines],
        entries=entries,
    )


def _published(manifests: Mapping[str, Manifest]) -> list[tuple[str, Manifest, Entry]]:
    return [(repo_id, manifest, entry) for repo_id, manifest in manifests.items() for entry in manifest.published()]


def _label(format_name: str, variant: str) -> str:
    """Format and variant; a variant whose name begins with its format's is named by itself."""
    return variant if variant.lower().startswith(format_name) else f"{format_name} {variant}"


def _why_apart(entry: Entry, source: SourceRecord, protocol: Protocol | None) -> str:
    if entry.recipe.source_sha != source.sha:
        return f"made from commit {entry.recipe.source_sha[:8]} of the source, the others from {source.sha[:8]}"
    own = entry.evaluation.protocol
    shown = f"{own.windows} windows of {own.n_ctx} tokens of {own.text}, version {own.version} of the protocol"
    return f"measured on {shown}" if protocol is not None and own != protocol else "not comparable"


def _variant(repo_id: str, entry: Entry) -> ComparedVariant:
    evaluation, divergence = entry.evaluation, entry.evaluation.divergence
    return ComparedVariant(
        format=entry.recipe.format,
        variant=entry.variant,
        repo_id=repo_id,
        branch=entry.branch,
        engine=evaluation.engine,
        size=entry.artifact.size,
        bits_per_weight=entry.artifact.bits_per_weight,
        seconds_to_make=entry.seconds,
        weights_bytes=evaluation.weights_bytes,
        memory_bytes=evaluation.memory_bytes,
        perplexity=evaluation.perplexity,
        perplexity_error=evaluation.perplexity_error,
        divergence=divergence.mean if divergence else None,
        divergence_error=divergence.mean_error if divergence else None,
        same_top=divergence.same_top if divergence else None,
        non_finite=evaluation.non_finite,
        prompt_tokens_per_second=evaluation.tokens_per_second,
        generation_tokens_per_second=evaluation.generation_tokens_per_second,
        runner=evaluation.runner,
    )


def _choices(variants: Sequence[ComparedVariant]) -> list[Choice]:
    """For each class of memory the closest variant per engine and runner; classes that change nothing are left out, as
    are all where a divergence is missing."""
    if any(variant.divergence is None for variant in variants):
        return []
    choices: list[Choice] = []
    for limit in MEMORY_CLASSES:
        within = [variant for variant in variants if variant.memory_bytes <= limit]
        best = [
            min((each for each in within if (each.engine, each.runner) == measured_by), key=_closeness)
            for measured_by in dict.fromkeys((each.engine, each.runner) for each in within)
        ]
        best.sort(key=_closeness)
        if best and (not choices or best != choices[-1].best):
            choices.append(Choice(memory_bytes=limit, best=best))
    return choices


def _closeness(variant: ComparedVariant) -> tuple[float, int, str]:
    assert variant.divergence is not None
    return variant.divergence, variant.memory_bytes, variant.name
