"""Nights by hand: what a plan asks for is composed and committed as a press does; nothing is quantized."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from quantpress.card import CardContext
from quantpress.catalog import model_name
from quantpress.evaluation.protocol import current_protocol
from quantpress.manifest import Alias, Entry, File, Manifest, SourceRecord, Verdict
from quantpress.plan import FormatPlan, ModelPlan, VariantPlan
from quantpress.publication import Pressed, adopted, compose_manifest, compose_revisions
from quantpress.publish import Revision, ensure_repo, publish
from quantpress.published import read_published
from quantpress.settings import Settings
from tests.quantpress import samples


@dataclass(frozen=True)
class Night:
    """One format of a model under the plan that was made at its beginning; ``folder`` is where files lie before they
    are published."""

    api: HfApi
    folder: Path
    model: ModelPlan
    number: int = 0

    @property
    def plan(self) -> FormatPlan:
        return self.model.formats[self.number]

    @property
    def source(self) -> SourceRecord:
        assert self.model.source is not None
        return self.model.source.record

    def planned(self, variant: str) -> VariantPlan:
        return next(each for each in self.plan.variants if each.variant.name == variant)

    def entry(self, variant: str, **changes: Any) -> Entry:
        """The entry of a variant that was just made, measured under the plan's protocol, with a file of its own."""
        assert self.model.source is not None
        planned = self.planned(variant)
        sample = samples.entry("gguf", variant, bits=8.5, divergence=0.001)
        name = f"{model_name(self.source.repo)}-{variant}.gguf" if self.plan.format == "gguf" else "model.safetensors"
        text = f"{variant} of {self.source.sha}".encode()
        file = File(path=name, size=len(text), sha256=hashlib.sha256(text).hexdigest())
        (self.folder / variant).mkdir(exist_ok=True)
        (self.folder / variant / name).write_bytes(text)
        protocol = current_protocol(self.model.source, Settings(home=self.folder))
        own = {
            "recipe": planned.recipe,
            "fingerprint": planned.recipe.fingerprint,
            "branch": planned.variant.branch,
            "artifact": sample.artifact.model_copy(update={"files": [file]}),
            "evaluation": sample.evaluation.model_copy(update={"protocol": protocol}),
        }
        return sample.model_copy(update=own | changes)

    def withheld(self, variant: str, reason: str) -> Entry:
        return self.entry(variant, status="withheld", verdict=Verdict(passed=False, reasons=[reason]))

    def press(self, *entries: Entry, aliases: Sequence[Alias] = (), killed_after: str | None = None) -> Manifest:
        """Commits what was made, and returns the manifest of ``main``; a press that is killed commits no branch after
        ``killed_after``."""
        folders = {entry.variant: self.folder / entry.variant for entry in entries}
        pressed = Pressed(list(entries), list(aliases), folders, [], [samples.evaluation(16.1)], {})
        return self._commit(pressed, killed_after)

    def cards(self, **changes: Any) -> Manifest:
        """The press's commit of cards and manifest alone."""
        pressed = adopted(self._now(), ())
        assert pressed is not None
        return self._commit(replace(pressed, **changes), None)

    def _now(self) -> FormatPlan:
        return replace(self.plan, published=read_published(self.api, self.plan.repo_id))

    def _commit(self, pressed: Pressed, killed_after: str | None) -> Manifest:
        ensure_repo(self.api, self.plan.repo_id, False)
        now = self._now()
        manifest = compose_manifest(now, model_name(self.source.repo), self.source, pressed, [])
        context = CardContext(repo_id=self.plan.repo_id, quantized_by="press")
        for revision in compose_revisions(now, manifest, pressed, [], context):
            self._publish(revision, now)
            if revision.branch == killed_after:
                break
        return manifest

    def _publish(self, revision: Revision, now: FormatPlan) -> None:
        publish(self.api, self.plan.repo_id, revision, now.published.heads, "press")
