"""Which of a manifest's figures may stand side by side, and which variants are worth having.

Figures are compared only within one protocol. A variant is *dominated* where another one is no larger and
measures no farther from the unquantized model, and is better in one of the two: nobody should take it. What
is left is the efficient frontier.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quantpress.record.manifest import Entry, Manifest
from quantpress.record.measurement import Evaluation, Protocol

#: Standard errors by which figures must differ before a difference is taken for more than chance.
SURE = 2.0

#: How far a variant is from the unquantized model, on some scale; smaller is better.
Distance = Callable[[Entry], float]
#: What a variant costs, in bytes; smaller is better.
Cost = Callable[[Entry], int]


@dataclass(frozen=True)
class Comparison:
    """``entries`` are the published variants measured under ``protocol``, largest first; ``others`` were measured
    under another one. ``reference`` is the unquantized model under the same protocol, by the same engine if
    it was measured by it."""

    protocol: Protocol | None
    reference: Evaluation | None
    entries: list[Entry]
    others: list[Entry]

    @property
    def has_divergence(self) -> bool:
        """Whether every comparable variant has its divergence measured (and there is at least one)."""
        return bool(self.entries) and all(entry.evaluation.divergence for entry in self.entries)

    @property
    def distance(self) -> Distance:
        """Mean divergence where every variant has it, else perplexity."""
        return mean_divergence if self.has_divergence else perplexity


def perplexity(entry: Entry) -> float:
    return entry.evaluation.perplexity


def mean_divergence(entry: Entry) -> float:
    """Mean KL divergence in nats per token; infinite where it was not measured."""
    divergence = entry.evaluation.divergence
    return divergence.mean if divergence else float("inf")


def size(entry: Entry) -> int:
    """Bytes of its files."""
    return entry.artifact.size


def memory(entry: Entry) -> int:
    """Peak bytes of memory while it was measured."""
    return entry.evaluation.memory_bytes


def compare(manifest: Manifest) -> Comparison:
    """The published variants under the protocol that most of them share."""
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
    """The variant to take instead of this one: no larger and no farther, better in one; the nearest of these."""
    better = [
        other
        for other in entries
        if cost(other) <= cost(entry)
        and distance(other) <= distance(entry)
        and (cost(other), distance(other)) != (cost(entry), distance(entry))
    ]
    return min(better, key=lambda other: (distance(other), cost(other)), default=None)


def worse_with_more_bits(entry: Entry, entries: Sequence[Entry]) -> Entry | None:
    """The closest of the variants that have fewer bits per weight than this one and a smaller mean divergence, by
    more than the measurement errors of both. They are taken for independent; read from the same positions, the
    difference is surer than that."""
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
    """What the figures of a manifest's published variants show when they stand side by side, per variant."""
    entries, found = compare(manifest).entries, {}
    for entry in entries:
        other = worse_with_more_bits(entry, entries)
        if other is not None:
            found[entry.variant] = worse_text(other)
    return found


def worse_text(other: Entry) -> str:
    """What is said of a variant that ``other``, which has fewer bits, surpasses."""
    return f"worse than {other.variant}, which has fewer bits, beyond the measurement error"


def runner(entry: Entry) -> tuple[str, str | None]:
    """Engine and runner: memory is compared within these alone. PyTorch's allocations on a GPU, llama.cpp's buffers and
    all that a process took are different things."""
    return entry.evaluation.engine, entry.evaluation.runner


def memory_frontiers(entries: Sequence[Entry], distance: Distance) -> list[list[Entry]]:
    """The frontier by memory of each engine on each runner, in the order in which they come."""
    by_runner: dict[tuple[str, str | None], list[Entry]] = {}
    for entry in entries:
        by_runner.setdefault(runner(entry), []).append(entry)
    return [frontier(each, distance, memory) for each in by_runner.values()]


def frontier(entries: Sequence[Entry], distance: Distance, cost: Cost = size) -> list[Entry]:
    """The variants that none dominates, cheapest first."""
    kept = [entry for entry in entries if dominating(entry, entries, distance, cost) is None]
    return sorted(kept, key=lambda entry: (cost(entry), distance(entry), entry.variant))
