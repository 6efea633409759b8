"""Decides what to do with a variant, and why: compares the variant's recipe with what is published.

The shelf is what our repo on the target Hub holds. An entry is what a manifest says about one variant. A press is a run
that makes and publishes variants.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from quantizers import quantizer
from quantizers.traits import traits_of
from quantpress.card.templates import templates_fingerprint
from quantpress.evaluation.protocol import difference
from quantpress.gate.judge import exceeds
from quantpress.gate.limits import Limit
from quantpress.record.clients import findable
from quantpress.record.manifest import Alias, Entry, SourceRecord
from quantpress.record.measurement import Protocol
from quantpress.record.names import model_name
from quantpress.record.recipe import Recipe
from quantpress.record.shelf import Shelf

#: What to do. ``press``: make the variant. ``refresh``: give the published weights new metadata. ``evaluate``: measure
#: the published files again. ``verify``: download and load a published variant that was not verified or was faulty.
#: ``card``: commit only cards and manifest. ``compare``: make the comparison of all formats again. ``keep``: leave the
#: variant as it is. ``skip``: leave out a model because the catalog says so, or leave out a variant that the model
#: cannot have.
#: ``defer``: leave the variant to a later run. ``block``: do nothing, because of an obstacle that the reason names.
#: ``orphaned``: leave a published repo as it is, although the catalog no longer asks for it.
Action = Literal[
    "press", "refresh", "evaluate", "verify", "card", "compare", "keep", "skip", "defer", "block", "orphaned"
]  # fmt: skip


class Decision(NamedTuple):
    """An action and its reason."""

    action: Action
    reason: str


def decide(
    recipe: Recipe,
    branch: str,
    source: SourceRecord,
    shelf: Shelf,
    limit: Limit | None,
    protocol: Protocol,
) -> Decision:
    """Compares a variant's recipe with its published entry.

    ``source`` is the source as it is upstream now. ``limit`` is the gate's current limit for the variant, or None if it
    has no limit. ``protocol`` is the protocol under which a press would measure the variant now.
    """
    alias = shelf.alias(recipe.variant)
    if alias is not None and (decided := _decide_by_alias(alias, recipe, source, shelf)):
        return decided
    entry = shelf.entry(recipe.variant, branch)
    if entry is None:
        return Decision("press", "new")
    if entry.fingerprint == recipe.fingerprint:
        return _decide_by_name(entry) or _decide_by_protocol(entry, protocol) or _decide_by_gate(entry, limit)
    changed = _changed(entry.recipe, recipe)
    if changed != ["source_sha"]:
        return Decision("press", f"recipe changed: {', '.join(changed)}")
    return _decide_by_source(entry, source, shelf.source_files(entry.recipe.source_sha))


def _decide_by_alias(alias: Alias, recipe: Recipe, source: SourceRecord, shelf: Shelf) -> Decision | None:
    if alias.fingerprint == recipe.fingerprint:
        return Decision("keep", f"same as {alias.same_as}")
    before = shelf.source_files(alias.recipe.source_sha)
    if (
        _changed(alias.recipe, recipe) == ["source_sha"]
        and before
        and not _weights(changed_files(before, source.files))
    ):
        return Decision(
            "card", f"same as {alias.same_as}; {_moved(alias.recipe, source)}, but the weights did not change"
        )
    return None


def _decide_by_source(entry: Entry, source: SourceRecord, before: dict[str, str]) -> Decision:
    """Decides about an entry whose recipe differs from the current recipe only in the commit of the source.

    ``before`` is a dict from path to hash of the source's files, at the source commit that the entry's recipe names.
    It is empty if no manifest records these files.
    """
    moved = _moved(entry.recipe, source)
    if not before:
        return Decision("press", f"{moved}; what changed is not known")
    changed = changed_files(before, source.files)
    if weights := _weights(changed):
        return Decision("press", f"{moved}; weights changed: {', '.join(weights)}")
    if entry.status != "published":
        return Decision("keep", _why_absent(entry))
    if not changed:
        return Decision("card", f"{moved}; none of the files that quantpress reads has changed")
    if len(entry.artifact.files) > 1 and not traits_of(quantizer(entry.recipe.format)).renews_parts:
        return Decision(
            "press",
            f"{moved}; changed: {', '.join(changed)}; the variant has several files and cannot be given new metadata, "
            "so its files are made again",
        )
    return Decision("refresh", f"{moved}; weights did not change, metadata did: {', '.join(changed)}")


def _moved(recipe: Recipe, source: SourceRecord) -> str:
    return f"source moved: {recipe.source_sha[:8]} to {source.sha[:8]}"


def _weights(paths: list[str]) -> list[str]:
    return [path for path in paths if path.endswith(".safetensors")]


def changed_files(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Returns the paths of files that were added, removed or changed. Both dicts map a path to a hash."""
    return sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))


def _decide_by_name(entry: Entry) -> Decision | None:
    """Compares the names of an entry's files with the names that clients find. Returns None if clients find them.

    Older versions kept a rung's name in the model's name, and clients took the wrong file.
    """
    chosen = quantizer(entry.recipe.format)
    if entry.status != "published" or not traits_of(chosen).is_one_file:
        return None
    name = model_name(entry.recipe.source)
    stem = findable(name, {tag for ladder in chosen.ladders().values() for tag in ladder})
    if stem == name or not entry.artifact.files[0].path.startswith(f"{name}-"):
        return None
    return Decision("press", f"clients find a tag in {name}: its file is made again as {stem}-{entry.variant}.gguf")


def _decide_by_protocol(entry: Entry, protocol: Protocol) -> Decision | None:
    """Compares the protocol under which an entry was measured with the current protocol. Returns None if the protocol
    gives no reason to act. The entry's recipe did not change.

    A withheld variant is made again, because its files were not published and so cannot be measured.
    """
    changed = difference(entry.evaluation.protocol, protocol)
    if not changed or entry.status == "retracted":
        return None
    if entry.status == "withheld":
        return Decision("press", f"{changed}; the variant was withheld, so its files are made again")
    return Decision("evaluate", changed)


def _decide_by_gate(entry: Entry, limit: Limit | None) -> Decision:
    """Compares an entry's figures with the gate's current limit. The entry's recipe did not change.

    A retracted variant stays retracted, whatever the limit is.
    """
    if entry.status == "retracted":
        return Decision("keep", _why_absent(entry))
    if _gate_says_otherwise(entry, limit):
        return Decision("press", f"gate changed: the limit on the variant's mean KLD is now {_limit_text(limit)}")
    if entry.status == "withheld":
        return Decision("keep", _why_absent(entry))
    if entry.problems:
        return Decision("verify", f"found faulty after upload: {'; '.join(entry.problems)}")
    if entry.verified is None:
        return Decision("verify", "published, not verified yet")
    return Decision("keep", "up to date")


def _why_absent(entry: Entry) -> str:
    """Returns the reason why an entry's files are not published."""
    if entry.status == "retracted":
        return f"retracted: {entry.retraction}"
    return f"withheld: {'; '.join(entry.verdict.reasons)}"


def _gate_says_otherwise(entry: Entry, limit: Limit | None) -> bool:
    """Whether the current limit changes the gate's verdict on an entry's divergence. For a withheld entry, this
    is so only if the entry exceeded its former limit and does not exceed the current limit."""
    before, now = entry.verdict.max_divergence, limit.max_divergence if limit else None
    exceeded = now is not None and exceeds(entry.evaluation, now)
    if entry.status == "published":
        return exceeded
    return before is not None and exceeds(entry.evaluation, before) and not exceeded


def _limit_text(limit: Limit | None) -> str:
    return f"{limit.max_divergence:g}" if limit else "none"


def _changed(old: Recipe, new: Recipe) -> list[str]:
    before, after = old.model_dump(), new.model_dump()
    return [key for key in after if before[key] != after[key]]


def decide_cards(shelf: Shelf, source: SourceRecord) -> str | None:
    """Returns the reason why a repo's cards must be committed again, or None if there is no reason.

    ``source`` is the source as it is upstream now.
    """
    manifest = shelf.manifest
    if manifest is None:
        return None
    if misled := _misled(shelf):
        return f"the entries on main and on the variants' own branches differ: {', '.join(misled)}"
    if manifest.source.gated != source.gated:  # gating is an upstream setting that no commit records
        return f"the source is gated now ({source.gated})" if source.gated else "the source is not gated any more"
    return "the card's templates changed" if manifest.card != templates_fingerprint(manifest.format) else None


def _misled(shelf: Shelf) -> list[str]:
    """Returns the variants whose entry on ``main`` differs from the entry on the variant's own branch.

    The entries differ if a press was killed between the commits to the two branches.
    """
    main = shelf.manifests.get("main")
    listed = {entry.variant: entry for entry in main.entries} if main else {}
    own = {entry.variant: entry for entry in shelf.entries()}
    return sorted(name for name in listed.keys() | own.keys() if listed.get(name) != own.get(name))
