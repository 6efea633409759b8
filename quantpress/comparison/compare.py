"""Compares all formats and variants of one model. Uses only the manifests of the model's repositories.

Variants are compared only if they were made from one commit of the source and measured under one protocol. All other
variants are listed apart, with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from quantpress.errors import BadInput
from quantpress.evaluation import frontier as figures
from quantpress.record.base import Record
from quantpress.record.manifest import Entry, Manifest, SourceRecord
from quantpress.record.measurement import Evaluation, Protocol

#: Usual sizes of a machine's memory, in bytes. The table "which file for my memory?" has rows for these sizes.
MEMORY_CLASSES = tuple(
    int(gigabytes * 1e9)
    for gigabytes in (0.125, 0.25, 0.5, 1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 80, 96, 128, 192, 256, 384, 512, 768)
)


class ComparedVariant(Record):
    """One published variant. Sizes and memory are in bytes, divergence in nats per token, speed in tokens/s.

    ``seconds_to_make`` is the quantizer's time. If one run of the quantizer made several variants together,
    ``seconds_to_make`` is the time from the run's start until this variant was done, divided by the number of all
    variants of the run.
    ``memory_bytes`` is the peak while the variant was measured on ``runner``: GPU memory if the runner is a GPU, else
    the memory of the process.

    One variant dominates another if it is no larger than the other and no farther from the unquantized model, and is
    smaller or closer. ``best_for_size`` says that no variant dominates this one. ``best_for_memory`` says the same with
    memory instead of size, and considers only variants of the same engine and runner.
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
    """A published variant that cannot be compared with the others. ``reason`` says why."""

    format: str
    variant: str
    repo_id: str
    reason: str


class Choice(Record):
    """The best variants for machines with ``memory_bytes``: one per engine and runner.

    Each is the variant closest to the unquantized model among those whose measured peak is within ``memory_bytes``. The
    list is sorted, closest variant first.
    """

    memory_bytes: int
    best: list[ComparedVariant]


class ModelComparison(Record):
    """The comparison of one model's formats.

    ``variants`` are sorted by size, largest first. ``reference`` are the unquantized model's figures under the same
    protocol.
    """

    model_name: str
    source: SourceRecord
    protocol: Protocol | None
    reference: Evaluation | None
    variants: list[ComparedVariant]
    others: list[OtherVariant]
    choices: list[Choice]


def compare_formats(manifests: Mapping[str, Manifest]) -> ModelComparison:
    """Compares one model's formats. ``manifests`` maps repo id to the manifest of the repo's ``main``.

    Raises :class:`BadInput` if there is no manifest.
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
    """Merges the manifests into one, which names each entry by format and variant.

    Keeps only published entries that were made from one commit of the source: the commit that most of the published
    entries were made from.
    Raises :class:`BadInput` if there is no manifest.
    """
    if not manifests:
        raise BadInput("no manifest to compare: press the model first")
    kept = Counter(entry.recipe.source_sha for _, _, entry in _published(manifests))
    first = next(iter(manifests.values()))
    sha = kept.most_common(1)[0][0] if kept else first.source.sha
    of_sha = [manifest for manifest in manifests.values() if manifest.source.sha == sha]
    # If the source has a new commit, the formats are made again one after the other. A manifest names the new commit
    # as soon as one of the manifest's variants is made from that commit. So most variants can still come from the older
    # commit, although no manifest's ``source`` names the older commit. ``Manifest.earlier`` can still name it.
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
    """Returns format and variant. If the variant's name begins with the format's name, returns only the variant."""
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
    """Returns a choice for each size in ``MEMORY_CLASSES``. Leaves out a size that has the same best variants as the
    next smaller size. Returns an empty list if a variant's divergence is missing."""
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
