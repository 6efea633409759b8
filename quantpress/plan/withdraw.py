"""Names what is published from a source that is now known to be bad, with the command that withdraws it. Only a person
may withdraw a variant, because others may depend on it.

The manifests tell what is bad. No weights are downloaded and transformers is not imported.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from quantizers.protocol import Quantizer
from quantizers.traits import traits_of
from quantpress.errors import Refused
from quantpress.plan.steps import FormatPlan, Step
from quantpress.record.manifest import Entry
from quantpress.record.shelf import Shelf
from quantpress.source.config import model_config
from quantpress.source.quantized import require_unquantized
from quantpress.source.source import Source


def without_bad(plan: FormatPlan, chosen: Quantizer, source: Source) -> FormatPlan:
    """Returns the plan with a blocked step for each published variant that was made from a bad source. Nothing else is
    done to such a variant, unless the source has changed since and the variant is made again."""
    steps = withdrawals(plan.shelf, chosen, source)
    bad = {step.variant for step in steps}
    kept = tuple(each for each in plan.variants if each.step.action == "press" or each.variant.name not in bad)
    return replace(plan, variants=kept, blocked=(*plan.blocked, *steps))


def withdrawals(shelf: Shelf, chosen: Quantizer, source: Source) -> tuple[Step, ...]:
    """Returns a blocked step for each published variant that was made from ``source`` at its current commit, if the
    source is bad. ``shelf`` is what the format's repo on the target Hub holds."""
    found = [(entry.variant, _fault(entry, shelf, chosen, source)) for entry in _from(shelf, source)]
    return tuple(
        Step(
            model=source.record.repo,
            format=chosen.format,
            variant=name,
            repo_id=shelf.repo_id,
            action="block",
            reason=f"blocked: it is published, and {fault}; withdraw it: {_command(shelf.repo_id, name, fault)}",
        )
        for name, fault in found
        if fault is not None
    )


def _from(shelf: Shelf, source: Source) -> list[Entry]:
    entries = [entry for entry in shelf.entries() if entry.status == "published"]
    return [entry for entry in entries if entry.recipe.source_sha == source.record.sha]


def _command(repo_id: str, variant: str, reason: str) -> str:
    return shlex.join(["quantpress", "retract", repo_id, variant, "--reason", reason])


def _fault(entry: Entry, shelf: Shelf, chosen: Quantizer, source: Source) -> str | None:
    """Returns why a variant should not be published, or None if nothing is known against it."""
    try:
        require_unquantized(source.config, chosen.format, traits_of(chosen).fp8_source)
    except Refused:
        return "its source is quantized already"
    if chosen.engine != "transformers":
        return None  # llama.cpp loads no model with a missing tensor, and counts the weights in the GGUF file itself
    if added := _added_weights(entry, source.config):
        return f"it has {added:,} weights that are in no file of its source, so they are random numbers"
    if unread := _unread(shelf, source):
        return f"its bits per weight count files that are not the model's ({', '.join(unread)})"
    if _counts_twice(entry):
        return "its bits per weight count the source's weights twice"
    return None


def _added_weights(entry: Entry, config: Mapping[str, Any]) -> int:
    """Returns how many weights a variant has more than its source. A library may store the head of a model with tied
    embeddings once more, and these weights do not count."""
    stored, in_source = sum(entry.artifact.tensor_types.values()), entry.artifact.details.get("weights")
    added = stored - in_source if isinstance(in_source, int) else 0
    text = model_config(config).text
    head = (text.vocab_size or 0) * max(text.hidden_size, default=0)
    ties = config.get("tie_word_embeddings") is not False
    return 0 if added <= 0 or (ties and added == head) else added


def _unread(shelf: Shelf, source: Source) -> list[str]:
    """Returns the files with weights that a press read at this commit, and that are not read any more."""
    before = shelf.source_files(source.record.sha)
    return sorted(path for path in before.keys() - source.record.files.keys() if path.endswith(".safetensors"))


def _counts_twice(entry: Entry) -> bool:
    """Whether the weights of the source that a variant's figures count are about twice those of the variant. An encoder
    or a layer that a library leaves out is far smaller than the rest."""
    in_source = entry.artifact.details.get("weights")
    return isinstance(in_source, int) and in_source > 1.9 * sum(entry.artifact.tensor_types.values()) > 0
