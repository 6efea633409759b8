"""Loads a downloaded model in a child process, as a user of the model's engine would, and lets the model write."""

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
    """How to load variants, and which variants. If ``only`` is None, all variants of the branch are loaded.

    The LFS files of the other variants were already downloaded when they were published. For these files, only the
    hashes that the Hub lists are compared with the manifest.
    """

    device: Literal["cpu", "cuda"]
    threads: int
    only: Collection[str] | None = None

    def wants(self, variant: str) -> bool:
        return self.only is None or variant in self.only


@dataclass(frozen=True)
class Model:
    """A model whose files were all downloaded. ``path`` is a GGUF file or a checkpoint folder.

    If ``spoke`` is True, the model must write text now. ``spoke`` is True if the model wrote text when it was measured,
    or if nobody let the model write then. If the repo has no manifest, ``spoke`` is False.
    """

    name: str
    engine: Engine
    path: Path
    spoke: bool


def load(model: Model, loader: Loader, folder: Path) -> Spoken:
    """Loads a model and lets it continue a prompt. ``folder`` is for the child process's job file and log."""
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
