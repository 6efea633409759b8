"""The stages of one model that belong to no format, as plain functions. A Prefect flow wraps each one as a task."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from quantpress.comparison.publish import make_comparison_gated, open_comparison, publish_comparison
from quantpress.errors import Refused
from quantpress.evaluation.base import Baseline
from quantpress.evaluation.tensors import TensorsReport
from quantpress.hub.client import explained
from quantpress.hub.hubs import source_hub, target_hub
from quantpress.plan.steps import FormatPlan
from quantpress.press.bench import Bench
from quantpress.press.format_stages import FormatStages
from quantpress.publish.collection import keep_collection
from quantpress.settings import Settings
from quantpress.source.source import Source
from quantpress.source.source import fetch as download


@dataclass(frozen=True)
class ModelStages:
    """The stages that :func:`quantpress.press.model.press_model` calls. ``format`` holds the stages of one format."""

    fetch: Callable[[Bench, int], Path]
    check: Callable[[Bench], TensorsReport]
    baseline: Callable[[Bench], Baseline]
    toolchain: Callable[[str], str | None]
    check_format: Callable[[Bench, FormatPlan], None]
    make_gated: Callable[[Source, Settings], None]
    collect: Callable[[Source, list[str], Settings], list[str]]
    compare: Callable[[Source, list[str], Settings], str | None]
    format: FormatStages


def fetch(bench: Bench, needed: int) -> Path:
    """Downloads the source, if the disk has room for the whole press (the run that makes the model's variants).

    The press takes ``needed`` bytes in all. This number includes the bytes that an earlier run left on the disk. Raises
    :class:`~quantpress.errors.QuantpressError` if there is no room.
    """
    bench.workspace.require_disk(needed)
    return download(source_hub(bench.settings), bench.source, bench.workspace.source)


def make_gated(source: Source, settings: Settings) -> None:
    """If the source is gated now and its comparison is published, gates the comparison's repository."""
    make_comparison_gated(target_hub(settings), settings.namespace, source.record)


def collect(source: Source, repo_ids: list[str], settings: Settings) -> list[str]:
    """Adds the model's existing repositories and its comparison's repository to the model's collection on the Hub.

    Creates the comparison's repository if it is missing. Returns all these repositories. A Hub without collections is
    no error.
    """
    hub = target_hub(settings)
    there = []
    with suppress(Refused):  # the stage ``compare`` reports this refusal
        there.append(open_comparison(hub, settings.namespace, source.record, settings.private))
    with explained(hub.endpoint, f"looking for the repositories of {source.record.repo}"):
        there += [repo_id for repo_id in repo_ids if hub.repo_exists(repo_id)]
    keep_collection(hub, settings.namespace, source.record.repo, there, settings.private)
    return there


def compare(source: Source, collected: list[str], settings: Settings) -> str | None:
    """Publishes the comparison of the model's published formats. Returns the comparison's repository if there was a
    commit, else None.

    ``collected`` are the repositories that the model's collection holds. The commit records them.
    """
    return publish_comparison(target_hub(settings), settings.namespace, source.record, settings.private, collected)
