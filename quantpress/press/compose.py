"""Composes the commit to each branch of a format's repo: variants' files, manifest, cards, plots and checksums.

An entry is what the manifest says about one variant. An alias is a variant that has no files of its own, because its
weights would equal another variant's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from quantizers import quantizer_of
from quantizers.protocol import Layout
from quantpress.card.context import CardContext
from quantpress.card.render import render_card
from quantpress.card.templates import templates_fingerprint
from quantpress.evaluation.frontier import flags
from quantpress.evaluation.plots.draw import draw_plots
from quantpress.plan.decide import changed_files
from quantpress.plan.steps import FormatPlan
from quantpress.press.bench import FormatBench
from quantpress.press.shared_files import shared_files
from quantpress.press.stages import Made, describe
from quantpress.publish.commit import BranchCommit
from quantpress.record.manifest import (
    MANIFEST_FILE,
    Alias,
    Earlier,
    Entry,
    File,
    Manifest,
    SourceRecord,
    VerificationRecord,
)
from quantpress.record.measurement import Evaluation
from quantpress.record.names import model_name
from quantpress.record.recipe import Recipe
from quantpress.record.report import VariantReport, report_entry
from quantpress.record.sums import SUMS_FILE, sha256sums

_Found = TypeVar("_Found", Entry, Alias)


@dataclass(frozen=True)
class CommitContent:
    """What the next commits add to a format's repo.

    ``folders`` maps a new entry's variant to the folder with the variant's files. If a variant has no folder, its files
    on the branch stay. ``shared`` are new files that belong to no single variant, and ``kept`` are published files of
    this kind that stay as they are. ``verified`` is a dict from variant to commit: for each variant that a verification
    found to be sound, it holds the commit that was downloaded and loaded. ``faulty`` is a dict from variant to faults:
    for each variant that a verification found to be faulty, it holds what was wrong.
    """

    entries: list[Entry]
    aliases: list[Alias]
    folders: dict[str, Path]
    shared: list[Path]
    baselines: list[Evaluation]
    toolchain: dict[str, str]
    kept: tuple[File, ...] = ()
    verified: Mapping[str, str] = field(default_factory=dict)
    faulty: Mapping[str, list[str]] = field(default_factory=dict)
    verification: VerificationRecord | None = None


@dataclass(frozen=True)
class Composed:
    """The commits of one format, with the report's row for each new entry and the paths of the plots."""

    plan: FormatPlan
    commits: list[BranchCommit]
    rows: list[VariantReport]
    plots: list[Path]


def compose_format(
    plan: FormatPlan, source: SourceRecord, content: CommitContent, context: CardContext, folder: Path
) -> Composed:
    """Returns the commit of every branch that changes: files, manifest, cards, plots and sums. Draws the plots into
    ``folder``."""
    name = model_name(source.repo)
    plots = draw_plots(compose_manifest(plan, name, source, content, []), folder)
    manifest = compose_manifest(plan, name, source, content, plots)
    commits = compose_commits(plan, manifest, content, plots, context)
    rows = [report_entry(source.repo, plan.repo_id, entry) for entry in content.entries]
    return Composed(plan, commits, rows, plots)


def aliases_of(plan: FormatPlan, layout: Layout) -> list[Alias]:
    """Returns an alias for each variant that ``layout`` does not make, because another variant holds the same weights
    in the same types."""
    recipes = {each.variant.name: each.recipe for each in plan.to_press}
    return [
        Alias(recipe=recipes[name], fingerprint=recipes[name].fingerprint, same_as=other)
        for name, other in layout.aliases.items()
    ]


def content_of(
    plan: FormatPlan, bench: FormatBench, entries: list[Entry], made: Mapping[str, Made], aliases: list[Alias]
) -> CommitContent:
    """Returns what the new ``entries`` add to the repo. If a variant was only measured again, its published files
    stay."""
    chosen = quantizer_of(plan.variants[0].variant)
    measured_again = {each.variant.name for each in plan.to_evaluate}
    return CommitContent(
        entries=entries,
        aliases=aliases,
        folders={entry.variant: made[entry.variant].files for entry in entries if entry.variant not in measured_again},
        shared=shared_files(chosen, bench.job),
        baselines=list(dict.fromkeys([bench.reference.evaluation, bench.base.evaluation])),
        toolchain=chosen.tools(),
    )


def adopted(plan: FormatPlan, plots: Collection[str]) -> CommitContent | None:
    """Returns what is published already, as the content of a new commit. Returns None if nothing is published.

    A variant whose action is ``card`` gets the plan's recipe instead of the published one, because the two recipes
    differ only in the source's commit. The shared files named in ``plots`` are not kept, because they are drawn again.
    """
    manifest = plan.shelf.manifest
    if manifest is None:
        return None
    recipes = {each.variant.name: each.recipe for each in plan.variants if each.step.action == "card"}

    def under_recipe(found: _Found) -> _Found:
        recipe = recipes.get(found.variant)
        return found.model_copy(update={"recipe": recipe, "fingerprint": recipe.fingerprint}) if recipe else found

    return CommitContent(
        entries=[under_recipe(entry) for entry in plan.shelf.entries()],
        aliases=[under_recipe(alias) for alias in manifest.aliases],
        folders={},
        shared=[],
        baselines=manifest.baselines,
        toolchain=manifest.toolchain,
        kept=tuple(file for file in manifest.shared if file.path not in plots),
    )


def compose_manifest(
    plan: FormatPlan, model_name: str, source: SourceRecord, content: CommitContent, plots: list[Path]
) -> Manifest:
    """Returns the manifest of ``main``. Its entries are in the order of the ladder (the plan's list of variants).

    The manifest holds the new entries and the recorded entries. It drops a recorded entry if new files replace the
    entry's files. A recorded entry stays even if its variant is blocked or no longer in the catalog. If an entry was
    made from an earlier commit of the source, a flag says so. If a variant has become an alias of another variant, its
    entry stays until that other variant has been made from the plan's recipe. Then the alias replaces the entry.
    """
    before = {entry.variant: entry for entry in plan.shelf.entries()}
    entries = {name: entry for name, entry in before.items() if not _is_replaced(entry, content)}
    entries |= {entry.variant: _after(before.get(entry.variant), entry) for entry in content.entries}
    for name, found in _verifications(content).items():
        if name in entries and entries[name].status == "published":
            entries[name] = entries[name].model_copy(update=found)
    main = plan.shelf.manifests.get("main")
    aliases = {alias.variant: alias for alias in (main.aliases if main and main.source.sha == source.sha else [])}
    named = {alias.variant: alias for alias in content.aliases}
    made = {each.variant.name for each in plan.variants if _holds(entries, each.recipe)}
    entries = {name: entry for name, entry in entries.items() if name not in named or named[name].same_as not in made}
    ladder = [planned.variant.name for planned in plan.variants]
    order = {name: position for position, name in enumerate(ladder)}
    manifest = Manifest(
        format=plan.format,
        model_name=model_name,
        source=source,
        toolchain=content.toolchain,
        baselines=content.baselines,
        entries=sorted(entries.values(), key=lambda entry: order.get(entry.variant, len(order))),
        aliases=[alias for alias in (aliases | named).values() if alias.variant not in entries],
        shared=[*content.kept, *(describe(path) for path in [*content.shared, *plots])],
        earlier=_earlier(plan, "main", source),
        card=templates_fingerprint(plan.format),
        verification=content.verification or (main.verification if main else None),
    )
    coming = {planned.variant.name for planned in plan.to_make}
    old = {
        entry.variant: f"made from the source's earlier commit {entry.recipe.source_sha[:8]}"
        + (", to be made anew" if entry.variant in coming else "")
        for entry in manifest.published()
        if entry.recipe.source_sha != source.sha
    }
    return manifest.model_copy(update={"flags": flags(manifest) | old})


def _earlier(plan: FormatPlan, branch: str, source: SourceRecord) -> list[Earlier]:
    """Returns the earlier states of a branch. A tag keeps each state. If the source has moved, the list includes the
    branch's current state, because the next commit replaces that state.

    Each branch has its own list, because branches begin at different times and not every commit changes each branch.
    """
    before = plan.shelf.manifests.get(branch)
    if before is None or before.source.sha == source.sha:
        return before.earlier if before else []
    tag = f"v{len(before.earlier) + 1}"
    changed = changed_files(before.source.files, source.files) if before.source.files else []
    own = Earlier(tag=tag if branch == "main" else f"{tag}-{branch}", source=before.source, changed=changed)
    return [*before.earlier, own]


def _is_replaced(entry: Entry, content: CommitContent) -> bool:
    """Whether new files replace the files of a published entry, because they have the same branch and the same names.

    This happens if another variant is now the default of the branch, or if the variant itself is made again.
    """
    published = [each for each in content.entries if each.status == "published"]
    new = {(each.branch, file.path) for each in published for file in each.artifact.files}
    return entry.status == "published" and any((entry.branch, file.path) in new for file in entry.artifact.files)


def _holds(entries: Mapping[str, Entry], recipe: Recipe) -> bool:
    entry = entries.get(recipe.variant)
    return entry is not None and entry.fingerprint == recipe.fingerprint


def _after(before: Entry | None, entry: Entry) -> Entry:
    """Returns the new ``entry`` of a variant. If it is withheld, adds the retraction of the entry ``before``, because a
    retraction stays on record until the variant is published again."""
    if before is None or entry.status != "withheld":
        return entry
    return entry.model_copy(update={"retraction": before.retraction})


def _verifications(content: CommitContent) -> dict[str, dict[str, object]]:
    """Returns a dict from a variant to the fields of its entry that the verification changes."""
    found: dict[str, dict[str, object]] = {}
    found |= {name: {"verified": commit, "problems": []} for name, commit in content.verified.items()}
    return found | {name: {"verified": None, "problems": faults} for name, faults in content.faulty.items()}


def compose_commits(
    plan: FormatPlan, manifest: Manifest, content: CommitContent, plots: list[Path], context: CardContext
) -> list[BranchCommit]:
    """Returns the commit of each branch. ``main`` comes last, so that ``main`` never lists files that are not there.

    A variant that was withheld and never published gets no branch, because a branch must have files. Only ``main``
    lists this variant. If the branch of a withheld variant exists, the branch gets a commit. Without this commit, the
    branch's manifest would still say that the variant is published. A verification's result is also recorded on the
    variant's own branch, because the next plan trusts that branch.
    """
    told = {entry.branch for entry in manifest.published() if entry.variant in _verifications(content)}
    there = plan.shelf.manifests
    names = {entry.branch for entry in content.entries if entry.status == "published" or entry.branch in there} | told
    commits = []
    for name in sorted(names - {"main"}):
        own = manifest.model_copy(
            update={
                "entries": [entry for entry in manifest.entries if entry.branch == name],
                "shared": [],
                "earlier": _earlier(plan, name, manifest.source),
            }
        )
        commits.append(_commit(plan, own, content, [], context.model_copy(update={"branch": name})))
    commits.append(_commit(plan, manifest, content, [*content.shared, *plots], context))
    return [_tagged(commit, plan, manifest.source) for commit in commits]


def _commit(
    plan: FormatPlan, manifest: Manifest, content: CommitContent, shared: list[Path], context: CardContext
) -> BranchCommit:
    branch = context.branch
    uploads: dict[str, Path | bytes] = {path.name: path for path in shared}
    for entry in manifest.published(branch):
        folder = content.folders.get(entry.variant)
        if folder is not None:
            uploads |= {file.path: folder / file.path for file in entry.artifact.files}
    return branch_commit(manifest, context, uploads, plan.shelf.manifests.get(branch))


def branch_commit(
    manifest: Manifest, context: CardContext, uploads: Mapping[str, Path | bytes], before: Manifest | None
) -> BranchCommit:
    """Returns a branch's commit: ``uploads``, card, manifest and sums.

    The commit removes the files that the branch's previous manifest ``before`` lists and ``manifest`` does not list.
    """
    branch = context.branch
    texts = {"README.md": render_card(manifest, context).encode(), MANIFEST_FILE: manifest.to_json().encode()}
    listed = manifest.files(branch) + [
        File(path=path, size=len(text), sha256=hashlib.sha256(text).hexdigest()) for path, text in texts.items()
    ]
    sums = {SUMS_FILE: sha256sums(listed).encode()}
    return BranchCommit(branch, {**uploads, **texts, **sums}, manifest.gone(before, branch))


def _tagged(commit: BranchCommit, plan: FormatPlan, source: SourceRecord) -> BranchCommit:
    """If the branch was made from another commit of the source, adds a tag that keeps what the branch holds now."""
    before = plan.shelf.manifests.get(commit.branch)
    if before is None or before.source.sha == source.sha:
        return commit
    return replace(commit, tag=_earlier(plan, commit.branch, source)[-1].tag)
