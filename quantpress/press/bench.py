"""The bench: all that the stages need to make the variants of one model (source, settings, folders, texts, device).

A :class:`FormatBench` adds what the variants of one format need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from quantizers.protocol import Job
from quantpress.card.context import CardContext
from quantpress.catalog.schema import CalibrationLine, GateLine
from quantpress.evaluation.base import BaseCache, Baseline, base_cache
from quantpress.evaluation.protocol import current_protocol
from quantpress.evaluation.text import EvaluationText
from quantpress.machine.workspace import Workspace
from quantpress.plan.steps import ModelPlan
from quantpress.record.measurement import Protocol
from quantpress.settings import Settings
from quantpress.source.source import Source


@dataclass(frozen=True)
class Bench:
    """What the stages of one model share.

    ``calibration`` is the text for calibration, and ``amount`` says how much of it is used. ``text`` is the evaluation
    text. ``gates`` holds only the gate limits that the catalog changes. ``bases`` is the cache of the unquantized
    model's log-probabilities. If a format's files can be split, files of more than ``split_above`` bytes are split.
    """

    source: Source
    settings: Settings
    workspace: Workspace
    calibration: EvaluationText
    amount: CalibrationLine
    text: EvaluationText
    protocol: Protocol
    gates: Mapping[str, GateLine]
    device: Literal["cpu", "cuda"]
    threads: int
    bases: BaseCache
    split_above: int | None = None

    @classmethod
    def of(cls, plan: ModelPlan, settings: Settings) -> Bench:
        """Returns the bench for a planned model that has work.

        The protocol has as many windows as the settings ask for, or fewer if the budget for log-probabilities is too
        small.
        """
        assert plan.source is not None and plan.texts is not None
        text = plan.texts.evaluation
        return cls(
            source=plan.source,
            settings=settings,
            workspace=Workspace(settings.home, plan.source.record.repo, plan.source.record.sha),
            calibration=plan.texts.calibration,
            amount=plan.amount,
            text=text,
            protocol=current_protocol(plan.source, settings, text),
            gates=plan.gates,
            device=settings.compute_device(),
            threads=settings.thread_count(),
            bases=base_cache(settings),
            split_above=settings.split_above,
        )


@dataclass(frozen=True)
class FormatBench:
    """What every variant of a format needs.

    ``model`` is the model's bench. ``job`` is the job that prepared the format. ``reference`` holds the figures of the
    unquantized model that transformers measured. ``base`` holds the figures of the unquantized model that the format's
    engine measured. ``context`` is what the cards say in addition to the manifest.
    """

    model: Bench
    job: Job
    reference: Baseline
    base: Baseline
    context: CardContext
