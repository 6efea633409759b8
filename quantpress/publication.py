"""From entries to what is committed: the manifest, the cards, the plots and the sums of a repo's branches."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from quantpress.card import CardContext, render_card
from quantpress.evaluation.comparison import flags
from quantpress.evaluation.record import Evaluation
from quantpress.manifest import MANIFEST_FILE, Alias, Entry, File, Manifest, SourceRecord
from quantpress.plan import FormatPlan
from quantpress.press import describe
from quantpress.publish import SUMS_FILE, Revision, sha256sums


@dataclass(frozen=True)
class Pressed:
    """What the press made of a format: new entries, the folder of each one's files, aliases, and shared files."""

    entries: list[Entry]
    aliases: list[Alias]
    folders: dict[str, Path]
    shared: list[Path]
    baselines: list[Evaluation]
    toolchain: dict[str, str]


def compose_manifest(
    plan: FormatPlan, model_name: str, source: SourceRecord, pressed: Pressed, plots: list[Path]
) -> Manifest:
    """The manifest of ``main``: new entries, and published ones that still hold, in the ladder's order.

    An entry made from another source sha does not hold: its files leave the branch with this commit and stay
    reachable in the history.
    """
    entries = {entry.variant: entry for entry in _standing(plan, source)}
    entries |= {entry.variant: entry for entry in pressed.entries}
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
        shared=[describe(path) for path in [*pressed.shared, *plots]],
    )
    return manifest.model_copy(update={"flags": flags(manifest)})


def _standing(plan: FormatPlan, source: SourceRecord) -> list[Entry]:
    found = []
    for manifest in plan.published.manifests.values():
        for entry in manifest.entries:
            own = plan.published.entry(entry.variant, entry.branch)
            if own is not None and own.recipe.source_sha == source.sha:
                found.append(own)
    return found


def compose_revisions(
    plan: FormatPlan, manifest: Manifest, pressed: Pressed, plots: list[Path], context: CardContext
) -> list[Revision]:
    """What each branch shall hold; branches before ``main``, so that ``main`` never lists what is not there."""
    names = sorted({entry.branch for entry in pressed.entries} - {"main"})
    revisions = []
    for name in names:
        own = manifest.model_copy(
            update={"entries": [entry for entry in manifest.entries if entry.branch == name], "shared": []}
        )
        revisions.append(_revision(name, own, pressed, [], context.model_copy(update={"branch": name})))
    revisions.append(_revision("main", manifest, pressed, [*pressed.shared, *plots], context))
    return revisions


def _revision(branch: str, manifest: Manifest, pressed: Pressed, shared: list[Path], context: CardContext) -> Revision:
    uploads: dict[str, Path | bytes] = {path.name: path for path in shared}
    listed: list[File] = list(manifest.shared)
    keep: set[str] = set()
    for entry in manifest.published(branch):
        listed += entry.artifact.files
        folder = pressed.folders.get(entry.variant)
        for file in entry.artifact.files:
            if folder is None:
                keep.add(file.path)
            else:
                uploads[file.path] = folder / file.path
    texts = {"README.md": render_card(manifest, context), MANIFEST_FILE: manifest.to_json()}
    for path, text in texts.items():
        content = text.encode()
        uploads[path] = content
        listed.append(File(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest()))
    uploads[SUMS_FILE] = sha256sums(listed).encode()
    return Revision(branch, uploads, frozenset(keep))
