"""Withdraws a published variant. The files leave the branch. The manifest keeps the variant's entry and gets the
reason.

Nothing is erased, because the branch's history still has the files. If the variant has its own branch, the next plan
reads the variant's status from that branch's manifest, not from ``main``'s. So the variant is withdrawn there first,
and on ``main`` last. If a call is interrupted after the first commit, a second call finishes the work.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantpress.card.context import CardContext, gather_context
from quantpress.card.templates import templates_fingerprint
from quantpress.comparison.publish import publish_comparison
from quantpress.errors import BadInput, QuantpressError
from quantpress.evaluation.frontier import flags
from quantpress.evaluation.plots.draw import DIVERGENCE_PLOT, PERPLEXITY_PLOT, draw_plots
from quantpress.hints import hint
from quantpress.hub.hubs import Hubs
from quantpress.press.compose import branch_commit
from quantpress.press.stages import describe
from quantpress.publish.commit import publish, until_first
from quantpress.record.manifest import MANIFEST_FILE, Entry, Manifest, SourceRecord
from quantpress.record.shelf import Shelf, read_shelf
from quantpress.repo_id import check_repo_id
from quantpress.settings import Settings
from quantpress.text import one_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_PLOTS = (PERPLEXITY_PLOT, DIVERGENCE_PLOT)


@dataclass(frozen=True)
class Retraction:
    """The result of withdrawing a variant.

    ``commits`` maps a branch to its new commit. ``warnings`` say what could not be done.
    """

    repo_id: str
    variant: str
    reason: str
    commits: dict[str, str]
    warnings: list[str]


def retract(hubs: Hubs, repo_id: str, variant: str, reason: str, settings: Settings) -> Retraction:
    """Withdraws one variant of a repo, then publishes the comparison of the model's remaining variants.

    Makes a commit on each branch that lists the variant as published. Raises :class:`BadInput` if the reason is empty,
    if the repo is not ours, or if the variant is not published there.
    """
    check_repo_id(repo_id)
    reason = one_line(reason).strip()
    if not reason:
        raise BadInput("a retraction needs a reason: --reason TEXT; it goes to the card and the manifest")
    commits: dict[str, str] = {}

    def attempt() -> tuple[SourceRecord, list[str]]:
        shelf = read_shelf(hubs.target, repo_id)
        pending = _pending(hubs.target.endpoint, shelf, variant)
        context, warning = gather_context(shelf.manifests["main"], repo_id, settings, hubs)
        for branch in pending:
            commits[branch] = _commit(hubs.target, shelf, branch, variant, reason, context)
        return shelf.manifests["main"].source, [warning] if warning else []

    source, warnings = until_first(repo_id, attempt)
    try:
        publish_comparison(hubs.target, repo_id.partition("/")[0], source, settings.private)
    except QuantpressError as error:
        warnings.append(f"the comparison of {source.repo} still names {variant} until the next run: {error}")
    return Retraction(repo_id, variant, reason, commits, warnings)


def _pending(endpoint: str, shelf: Shelf, variant: str) -> list[str]:
    """Returns the branches whose manifests list the variant as published. ``main`` comes last.

    Raises :class:`BadInput` if there is no such branch.
    """
    repo_id = shelf.repo_id
    if not shelf.heads:
        raise BadInput(f"{endpoint} has no repository {repo_id} (or it is private and needs a token)")
    main = shelf.manifests.get("main")
    if main is None:
        raise BadInput(f"{repo_id} has no {MANIFEST_FILE}: only what quantpress has published can be retracted")
    entry = main.entry(variant)
    if entry is None:
        alias = shelf.alias(variant)
        if alias is not None:
            raise BadInput(f"{variant} of {repo_id} has no file of its own: it is the same as {alias.same_as}")
        names = [each.variant for each in main.entries]
        raise BadInput(f"{repo_id} has no variant {variant!r}: {hint(variant, names)}")
    if entry.status == "withheld":
        raise BadInput(f"{variant} of {repo_id} is withheld: nothing of it is published")
    listing = {branch: own.entry(variant) for branch, own in shelf.manifests.items()}
    pending = [branch for branch, own in listing.items() if own is not None and own.status == "published"]
    if not pending:
        raise BadInput(f"{variant} of {repo_id} is retracted already: {entry.retraction}")
    return sorted(pending, key=lambda branch: branch == "main")


def _commit(api: HfApi, shelf: Shelf, branch: str, variant: str, reason: str, context: CardContext) -> str:
    with tempfile.TemporaryDirectory(prefix="quantpress-retract-") as folder:
        before = shelf.manifests[branch]
        manifest = withdrawn(before, variant, reason)
        plots = draw_plots(manifest, Path(folder)) if branch == "main" else []
        manifest = _with_plots(manifest, plots)
        uploads = {plot.name: plot for plot in plots}
        commit = branch_commit(manifest, context.model_copy(update={"branch": branch}), uploads, before)
        return publish(api, shelf.repo_id, commit, shelf.heads, f"Retract {variant}: {reason}")


def withdrawn(manifest: Manifest, variant: str, reason: str) -> Manifest:
    """Returns ``manifest`` with the variant's entry retracted. The entry keeps its artifact, figures and recipe."""

    def after(entry: Entry) -> Entry:
        if entry.variant != variant:
            return entry
        return entry.model_copy(update={"status": "retracted", "retraction": reason})

    changed = manifest.model_copy(update={"entries": [after(entry) for entry in manifest.entries]})
    return changed.model_copy(update={"flags": flags(changed), "card": templates_fingerprint(manifest.format)})


def _with_plots(manifest: Manifest, plots: list[Path]) -> Manifest:
    others = [file for file in manifest.shared if file.path not in _PLOTS]
    return manifest.model_copy(update={"shared": [*others, *map(describe, plots)]})
