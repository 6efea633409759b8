"""Which of a manifest's figures may stand side by side, and which variants are worth having.

Figures are compared only within one protocol. A variant is *dominated* if another one is no larger and no
farther from the unquantized model, and is better in one of the two. Nobody should take a dominated variant.
The others are the efficient frontier.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quantpress.record.manifest import Entry, Manifest
from quantpress.record.measurement import Evaluation, Protocol

#: A difference between figures counts as more than chance if it exceeds this many standard errors.
SURE = 2.0

#: How far a variant is from the unquantized model, on some scale; smaller is better.
Distance = Callable[[Entry], float]
#: What a variant costs, in bytes; smaller is better.
Cost = Callable[[Entry], int]


@dataclass(frozen=True)
class Comparison:
    """Published variants whose figures may be compared.

    ``entries`` are the published variants measured under ``protocol``, largest first. ``others`` are the published
    variants measured under other protocols. ``reference`` is the unquantized model under the same protocol, measured
    by the engine that measured most of the variants if it has such a figure, else by another engine.
    """

    protocol: Protocol | None
    reference: Evaluation | None
    entries: list[Entry]
    others: list[Entry]

    @property
    def has_divergence(self) -> bool:
        """Whether there is a comparable variant, and the divergence of all of them was measured."""
        return bool(self.entries) and all(entry.evaluation.divergence for entry in self.entries)

    @property
    def distance(self) -> Distance:
        """Mean divergence if every variant has it, else perplexity."""
        return mean_divergence if self.has_divergence else perplexity


def perplexity(entry: Entry) -> float:
    return entry.evaluation.perplexity


def mean_divergence(entry: Entry) -> float:
    """Returns the mean KL divergence in nats per token; infinite if it was not measured."""
    divergence = entry.evaluation.divergence
    return divergence.mean if divergence else float("inf")


def size(entry: Entry) -> int:
    """Returns the bytes of the variant's files."""
    return entry.artifact.size


def memory(entry: Entry) -> int:
    """Returns the peak bytes of memory while the variant was measured."""
    return entry.evaluation.memory_bytes


def compare(manifest: Manifest) -> Comparison:
    """Compares the published variants under the protocol that most of them share."""
    published = sorted(manifest.published(), key=lambda entry: (-entry.artifact.size, entry.variant))
    if not published:
        return Comparison(protocol=None, reference=None, entries=[], others=[])
    kinds = Counter((entry.evaluation.protocol, entry.evaluation.engine) for entry in published)
    protocol, engine = kinds.most_common(1)[0][0]
    references = [baseline for baseline in manifest.baselines if baseline.protocol == protocol]
    references.sort(key=lambda baseline: baseline.engine != engine)
    return Comparison(
        protocol=protocol,
        reference=references[0] if references else None,
        entries=[entry for entry in published if entry.evaluation.protocol == protocol],
        others=[entry for entry in published if entry.evaluation.protocol != protocol],
    )


def dominating(entry: Entry, entries: Sequence[Entry], distance: Distance, cost: Cost = size) -> Entry | None:
    """Returns the variant to take instead of this one, if any: no larger, no farther, and better in one of the two.

    If there are several, it is the one nearest to the unquantized model.
    """
    better = [
        other
        for other in entries
        if cost(other) <= cost(entry)
        and distance(other) <= distance(entry)
        and (cost(other), distance(other)) != (cost(entry), distance(entry))
    ]
    return min(better, key=lambda other: (distance(other), cost(other)), default=None)


def worse_with_more_bits(entry: Entry, entries: Sequence[Entry]) -> Entry | None:
    """Returns a variant with fewer bits per weight than this one and a mean divergence that is surely smaller, if any.

    The difference must exceed the measurement errors of both variants. If there are several, it is the one nearest to
    the unquantized model. The errors are treated as independent. Both variants are measured at the same positions, so
    the difference is more certain than that.
    """
    own = entry.evaluation.divergence
    if own is None:
        return None
    better = [
        (other.evaluation.divergence.mean, other)
        for other in entries
        if other.evaluation.divergence
        and other.artifact.bits_per_weight < entry.artifact.bits_per_weight
        and own.mean - other.evaluation.divergence.mean
        > SURE * math.hypot(own.mean_error, other.evaluation.divergence.mean_error)
    ]
    return min(better, key=lambda each: each[0])[1] if better else None


def flags(manifest: Manifest) -> dict[str, str]:
    """Returns what the figures of a manifest's published variants show when they are compared, by variant."""
    entries, found = compare(manifest).entries, {}
    for entry in entries:
        other = worse_with_more_bits(entry, entries)
        if other is not None:
            found[entry.variant] = worse_text(other)
    return found


def worse_text(other: Entry) -> str:
    """Returns the text for a variant that is worse than ``other``, which has fewer bits."""
    return f"worse than {other.variant}, which has fewer bits, beyond the measurement error"


def runner(entry: Entry) -> tuple[str, str | None]:
    """Returns engine and runner. Memory is compared only between variants that share both.

    PyTorch's allocations on a GPU, llama.cpp's buffers and the whole memory of a process are different things.
    """
    return entry.evaluation.engine, entry.evaluation.runner


def memory_frontiers(entries: Sequence[Entry], distance: Distance) -> list[list[Entry]]:
    """Returns the frontier by memory of each engine on each runner, in the order of their first entries."""
    by_runner: dict[tuple[str, str | None], list[Entry]] = {}
    for entry in entries:
        by_runner.setdefault(runner(entry), []).append(entry)
    return [frontier(each, distance, memory) for each in by_runner.values()]


def frontier(entries: Sequence[Entry], distance: Distance, cost: Cost = size) -> list[Entry]:
    """Returns the variants that no other one dominates, cheapest first."""
    kept = [entry for entry in entries if dominating(entry, entries, distance, cost) is None]
    return sorted(kept, key=lambda entry: (cost(entry), distance(entry), entry.variant))
