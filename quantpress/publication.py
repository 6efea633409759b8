"""From entries to what is committed: the manifest, the cards, the plots and the sums of a repo's branches."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from quantpress.card import CardContext, render_card
from quantpress.card_templates import templates_fingerprint
from quantpress.decision import changed_files
from quantpress.evaluation.comparison import flags
from quantpress.evaluation.record import Evaluation
from quantpress.manifest import MANIFEST_FILE, Alias, Earlier, Entry, File, Manifest, SourceRecord, VerificationRecord
from quantpress.plan import FormatPlan
from quantpress.press import describe
from quantpress.publish import SUMS_FILE, Revision, sha256sums

_Found = TypeVar("_Found", Entry, Alias)


@dataclass(frozen=True)
class Pressed:
    """What the press made of a format: new entries, the folder of each one's files, aliases, and shared files.

    An entry without a folder keeps the files that are on its branch; ``kept`` are shared files that stay as they are.
    ``verified`` maps variants that were downloaded and loaded after an earlier commit to that commit.
    """

    entries: list[Entry]
    aliases: list[Alias]
    folders: dict[str, Path]
    shared: list[Path]
    baselines: list[Evaluation]
    toolchain: dict[str, str]
    kept: tuple[File, ...] = ()
    verified: Mapping[str, str] = field(default_factory=dict)
    verification: VerificationRecord | None = None


def adopted(plan: FormatPlan, plots: Collection[str]) -> Pressed | None:
    """What is published already, under the recipes of the plan where nothing but the source's commit changed; None
    where nothing is published. ``plots`` are names of shared files that are drawn anew."""
    main = plan.published.manifests.get("main")
    if main is None:
        return None
    recipes = {each.variant.name: each.recipe for each in plan.variants if each.step.action == "card"}

    def under_recipe(found: _Found) -> _Found:
        recipe = recipes.get(found.variant)
        return found.model_copy(update={"recipe": recipe, "fingerprint": recipe.fingerprint}) if recipe else found

    return Pressed(
        entries=[under_recipe(entry) for entry in _own_entries(plan)],
        aliases=[under_recipe(alias) for alias in main.aliases],
        folders={},
        shared=[],
        baselines=main.baselines,
        toolchain=main.toolchain,
        kept=tuple(file for file in main.shared if file.path not in plots),
    )


def compose_manifest(
    plan: FormatPlan, model_name: str, source: SourceRecord, pressed: Pressed, plots: list[Path]
) -> Manifest:
    """The manifest of ``main``: new entries, and published ones that still hold, in the ladder's order.

    An entry made from another commit of the source stands until it is made anew, and says so; one that the plan does
    not have any more leaves the branch with this commit. The old state is kept by a tag.
    """
    entries = {entry.variant: entry for entry in _standing(plan, source)}
    entries |= {entry.variant: entry for entry in pressed.entries}
    for name, commit in pressed.verified.items():
        if name in entries and entries[name].status == "published":
            entries[name] = entries[name].model_copy(update={"verified": commit})
    main = plan.published.manifests.get("main")
    aliases = {alias.variant: alias for alias in (main.aliases if main and main.source.sha == source.sha else [])}
    named = {alias.variant: alias for alias in pressed.aliases}
    ladder = [planned.variant.name for planned in plan.variants]
    order = {name: position for position, name in enumerate(ladder)}
    manifest = Manifest(
        format=plan.format,
        model_name=model_name,
        source=source,
        toolchain=pressed.toolchain,
        baselines=pressed.baselines,
        entries=sorted(entries.values(), key=lambda entry: order.get(entry.variant, len(order))),
        aliases=[alias for alias in (aliases | named).values() if alias.variant not in entries],
        shared=[*pressed.kept, *(describe(path) for path in [*pressed.shared, *plots])],
        earlier=_earlier(main, source),
        card=templates_fingerprint(plan.format),
        verification=pressed.verification or (main.verification if main else None),
    )
    old = {
        entry.variant: f"made from the source's earlier commit {entry.recipe.source_sha[:8]}, to be made anew"
        for entry in manifest.published()
        if entry.recipe.source_sha != source.sha
    }
    return manifest.model_copy(update={"flags": flags(manifest) | old})


def _earlier(main: Manifest | None, source: SourceRecord) -> list[Earlier]:
    """The states that tags keep: one more where this commit is the first from the source's new commit."""
    if main is None or main.source.sha == source.sha:
        return main.earlier if main else []
    changed = changed_files(main.source.files, source.files) if main.source.files else []
    return [*main.earlier, Earlier(tag=f"v{len(main.earlier) + 1}", source=main.source, changed=changed)]


def _own_entries(plan: FormatPlan) -> list[Entry]:
    """Every variant's entry, from the branch on which its files are."""
    listed = [entry for manifest in plan.published.manifests.values() for entry in manifest.entries]
    found = {entry.variant: plan.published.entry(entry.variant, entry.branch) for entry in listed}
    return [entry for entry in found.values() if entry is not None]


def _standing(plan: FormatPlan, source: SourceRecord) -> list[Entry]:
    """Entries of this commit of the source; of an earlier one what is to be made anew, until it is, and what was
    withheld or retracted and is not made again."""
    coming = {planned.variant.name for planned in plan.to_make}
    staying = {planned.variant.name for planned in plan.variants if planned.step.action == "keep"}
    return [
        entry
        for entry in _own_entries(plan)
        if entry.recipe.source_sha == source.sha
        or entry.variant in (coming if entry.status == "published" else staying)
    ]


def compose_revisions(
    plan: FormatPlan, manifest: Manifest, pressed: Pressed, plots: list[Path], context: CardContext
) -> list[Revision]:
    """What becomes of each branch; branches before ``main``, so that ``main`` never lists what is not there.

    No branch begins without files: what was withheld and never published stands on ``main`` alone. A branch that is
    there already follows, or its own manifest would go on to say that the variant is published.
    """
    there = plan.published.manifests
    names = {entry.branch for entry in pressed.entries if entry.status == "published" or entry.branch in there}
    revisions = []
    for name in sorted(names - {"main"}):
        own = manifest.model_copy(
            update={"entries": [entry for entry in manifest.entries if entry.branch == name], "shared": []}
        )
        revisions.append(_revision(plan, own, pressed, [], context.model_copy(update={"branch": name})))
    revisions.append(_revision(plan, manifest, pressed, [*pressed.shared, *plots], context))
    return [_tagged(revision, plan, manifest) for revision in revisions]


def _revision(
    plan: FormatPlan, manifest: Manifest, pressed: Pressed, shared: list[Path], context: CardContext
) -> Revision:
    branch = context.branch
    uploads: dict[str, Path | bytes] = {path.name: path for path in shared}
    listed = manifest.files(branch)
    for entry in manifest.published(branch):
        folder = pressed.folders.get(entry.variant)
        if folder is not None:
            uploads |= {file.path: folder / file.path for file in entry.artifact.files}
    texts = {"README.md": render_card(manifest, context), MANIFEST_FILE: manifest.to_json()}
    for path, text in texts.items():
        content = text.encode()
        uploads[path] = content
        listed.append(File(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest()))
    uploads[SUMS_FILE] = sha256sums(listed).encode()
    return Revision(branch, uploads, manifest.gone(plan.published.manifests.get(branch), branch))


def _tagged(revision: Revision, plan: FormatPlan, manifest: Manifest) -> Revision:
    """The revision with the tag that keeps what its branch holds now, if that was made from another source commit."""
    before = plan.published.manifests.get(revision.branch)
    if before is None or before.source.sha == manifest.source.sha:
        return revision
    tag = manifest.earlier[-1].tag
    return replace(revision, tag=tag if revision.branch == "main" else f"{tag}-{revision.branch}")
