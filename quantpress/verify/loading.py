"""Loads a downloaded model in a child process, as a user of its engine would, and lets it write."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quantpress.errors import ChildFailed
from quantpress.evaluation.generate import Generation, GenerationJob
from quantpress.evaluation.sample import PROMPT, TOKENS, speaks
from quantpress.machine.child import run_child
from quantpress.record.measurement import Engine
from quantpress.record.verification import Spoken


@dataclass(frozen=True)
class Loader:
    """How variants are loaded: on which device, with how many threads, and which ones (None: all of the branch).

    LFS files of the other variants were downloaded when they were published. For them, only the Hub's listing is
    compared.
    """

    device: Literal["cpu", "cuda"]
    threads: int
    only: Collection[str] | None = None

    def wants(self, variant: str) -> bool:
        return self.only is None or variant in self.only


@dataclass(frozen=True)
class Model:
    """A model whose files were all downloaded. ``path`` is its file, or the folder of a checkpoint. ``spoke`` says that
    it wrote text when it was made, so it must write text now."""

    name: str
    engine: Engine
    path: Path
    spoke: bool


def load(model: Model, loader: Loader, folder: Path) -> Spoken:
    """Lets a model continue a prompt. ``folder`` is for the child's job and log."""
    job = GenerationJob(
        engine=model.engine,
        model=model.path,
        prompt=PROMPT,
        tokens=TOKENS,
        threads=loader.threads,
        device=loader.device,
    )
    try:
        text = run_child("quantpress.evaluation.generate", job, Generation, folder).text
    except ChildFailed as error:
        return Spoken(model.name, "", "does not load and generate", str(error))
    if model.spoke and not speaks(text):
        return Spoken(model.name, text, "writes no text", repr(text[:40]))
    return Spoken(model.name, text, "")
