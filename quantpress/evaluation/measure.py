"""Measures a model of any format on this machine, and publishes nothing."""

from __future__ import annotations

from pathlib import Path

from quantpress.errors import BadInput
from quantpress.evaluation.base import BaseKey, base_cache
from quantpress.evaluation.job import EvaluationJob
from quantpress.evaluation.target import Target
from quantpress.evaluation.text import EvaluationText
from quantpress.evaluation.windows import windows_of_vocabulary
from quantpress.machine.child import run_child
from quantpress.machine.scratch import scratch
from quantpress.machine.watch import Limits
from quantpress.record.measurement import Evaluation, Protocol
from quantpress.settings import Settings


def measure(target: Target, text: EvaluationText, settings: Settings, base: Target | None = None) -> Evaluation:
    """Measures the perplexity of ``target`` on ``text``, in a child process. The settings give the number of windows.
    If the log-probabilities would exceed their budget, fewer windows are measured, as in publishing.

    ``base`` is the unquantized model as a checkpoint. If ``base`` is given, the divergence of ``target`` from
    ``base`` is measured too. The log-probabilities of ``base`` come from the cache that publishing also uses. If the
    cache lacks them, they are measured and put into the cache.

    Raises :class:`BadInput` if ``base`` is not a checkpoint for transformers.
    """
    if base is not None and base.engine != "transformers":
        raise BadInput(f"{base.model}: the base must be an unquantized checkpoint for transformers")
    windows = windows_of_vocabulary((base or target).vocabulary(), settings.windows, settings.logits_budget)
    protocol = Protocol(text=text.name, text_sha256=text.sha256, windows=windows)
    # The folder is in the home folder, not in the system's folder for temporary files, because the base's
    # log-probabilities are hard-linked from the cache into the folder. Hard links work only within one file system.
    with scratch(settings.home.resolve(), "evaluate") as folder:

        def run(model: Target, name: str, **logits: Path) -> Evaluation:
            job = EvaluationJob(
                engine=model.engine,
                model=model.model.absolute(),
                protocol=protocol,
                text=text.path.resolve(),
                threads=settings.thread_count(),
                device=settings.compute_device(),
                **logits,
            )
            most = Limits(memory=settings.child_memory)
            return run_child("quantpress.evaluation.job", job, Evaluation, folder / name, most)

        if base is None:
            return run(target, "model")
        key = BaseKey(sha=base.content(), protocol=protocol, engine="transformers", device=settings.compute_device())

        def save(logits: Path) -> Evaluation:
            return run(base, "base-run", save_logits=logits.resolve())

        taken = base_cache(settings).take(key, folder / "base", save)
        return run(target, "model", base_logits=taken.logits)
