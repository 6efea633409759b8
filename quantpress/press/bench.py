"""The bench: where one model is pressed, and where one format of it is pressed."""

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
    """What the stages of one model share: the source, folders, device and threads, the texts and the protocol, and the
    gate limits that the catalog changes."""

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
        """Returns the bench for a planned model that has work. The protocol has as many windows as the budget for
        log-probabilities allows."""
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
    """What every variant of a format needs: the model's bench, the job that prepared the format, the figures of the
    unquantized model, and what the cards say in addition to the manifest.

    ``reference`` has the figures by transformers, ``base`` those by the format's engine.
    """

    model: Bench
    job: Job
    reference: Baseline
    base: Baseline
    context: CardContext
