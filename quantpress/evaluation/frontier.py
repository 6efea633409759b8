"""Finds out which figures of a manifest can be compared, and which variants are worth having.

Figures are compared only within one protocol. A variant is *dominated* if another variant costs no more and is no
farther from the unquantized model, and is better in at least one of these two respects. The cost is the size, or the
peak memory. Nobody should take a dominated variant. The variants that are not dominated are the efficient frontier.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quantpress.record.manifest import Entry, Manifest
from quantpress.record.measurement import Evaluation, Protocol

#: If a difference between two figures exceeds this many standard errors, the difference counts as more than chance.
SURE = 2.0

#: A function that returns how far a variant is from the unquantized model, on some scale. Smaller is better.
Distance = Callable[[Entry], float]
#: A function that returns what a variant costs, in bytes. Smaller is better.
Cost = Callable[[Entry], int]


@dataclass(frozen=True)
class Comparison:
    """The published variants whose figures can be compared, and the other published variants.

    ``entries`` are the published variants measured under ``protocol``, largest first. ``others`` are the published
    variants measured under other protocols. ``reference`` is the evaluation of the unquantized model under
    ``protocol``, by the engine that measured most of the variants. If that engine did not measure the unquantized
    model, ``reference`` is the evaluation by another engine. If no engine did, ``reference`` is None.
    """

    protocol: Protocol | None
    reference: Evaluation | None
    entries: list[Entry]
    others: list[Entry]

    @property
    def has_divergence(self) -> bool:
        """Whether ``entries`` is not empty and all its variants have a measured divergence."""
        return bool(self.entries) and all(entry.evaluation.divergence for entry in self.entries)

    @property
    def distance(self) -> Distance:
        """The mean divergence if all ``entries`` have one, else the perplexity."""
        return mean_divergence if self.has_divergence else perplexity


def perplexity(entry: Entry) -> float:
    return entry.evaluation.perplexity


def mean_divergence(entry: Entry) -> float:
    """Returns the mean KL divergence in nats per token, or infinity if the divergence was not measured."""
    divergence = entry.evaluation.divergence
    return divergence.mean if divergence else float("inf")


def size(entry: Entry) -> int:
    """Returns the bytes of the variant's files."""
    return entry.artifact.size


def memory(entry: Entry) -> int:
    """Returns the peak memory in bytes during the measurement of the variant."""
    return entry.evaluation.memory_bytes


def compare(manifest: Manifest) -> Comparison:
    """Sorts the published variants into those under one protocol and the others.

    The function counts the variants of each pair of protocol and engine, and takes the protocol of the most common
    pair.
    """
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
    """Returns the variant to take instead of ``entry``, or None if no variant dominates ``entry``.

    If several variants dominate ``entry``, the result is the variant nearest to the unquantized model.
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
    """Returns a variant that has fewer bits per weight than ``entry`` and surely a smaller mean divergence, or None.

    The difference in divergence must exceed the measurement errors of both variants together. If several variants
    qualify, the result is the variant nearest to the unquantized model. The errors are treated as independent. In fact
    the difference is more certain, because both variants are measured at the same positions.
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
    """Returns a dict from the name of a variant to a text that says what is wrong with the variant.

    The dict has only the variants that are worse than a variant with fewer bits (:func:`worse_with_more_bits`).
    """
    entries, found = compare(manifest).entries, {}
    for entry in entries:
        other = worse_with_more_bits(entry, entries)
        if other is not None:
            found[entry.variant] = worse_text(other)
    return found


def worse_text(other: Entry) -> str:
    """Returns the text that describes a variant that is worse than ``other``, although ``other`` has fewer bits."""
    return f"worse than {other.variant}, which has fewer bits, beyond the measurement error"


def runner(entry: Entry) -> tuple[str, str | None]:
    """Returns the engine and the runner (the machine that measured).

    Memory is compared only between variants that share both, because engines count different things: PyTorch's
    allocations on a GPU, llama.cpp's buffers, or the whole memory of a process.
    """
    return entry.evaluation.engine, entry.evaluation.runner


def memory_frontiers(entries: Sequence[Entry], distance: Distance) -> list[list[Entry]]:
    """Returns one frontier by memory for each pair of engine and runner, in the order in which pairs first occur."""
    by_runner: dict[tuple[str, str | None], list[Entry]] = {}
    for entry in entries:
        by_runner.setdefault(runner(entry), []).append(entry)
    return [frontier(each, distance, memory) for each in by_runner.values()]


def frontier(entries: Sequence[Entry], distance: Distance, cost: Cost = size) -> list[Entry]:
    """Returns the variants that no other variant dominates, cheapest first."""
    kept = [entry for entry in entries if dominating(entry, entries, distance, cost) is None]
    return sorted(kept, key=lambda entry: (cost(entry), distance(entry), entry.variant))
