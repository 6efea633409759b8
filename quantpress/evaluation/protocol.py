"""Finds the protocol (text and windows) under which a model is measured now, and compares two protocols."""

from __future__ import annotations

from quantpress.evaluation.text import EvaluationText
from quantpress.evaluation.windows import windows_within
from quantpress.record.measurement import Protocol
from quantpress.settings import Settings
from quantpress.source.source import Source


def current_protocol(source: Source, settings: Settings, text: EvaluationText) -> Protocol:
    """Returns the protocol for the variants of ``source``, measured on ``text``.

    The settings give the number of windows. If the log-probabilities of so many windows exceed their budget, the
    protocol has fewer windows.
    """
    windows = windows_within(source, settings.windows, settings.logits_budget)
    return Protocol(text=text.name, text_sha256=text.sha256, windows=windows)


def difference(before: Protocol, now: Protocol) -> str:
    """Returns what changed between two protocols, in words. The text is empty if nothing changed."""
    changes = []
    if before.version != now.version:
        changes.append(f"protocol changed: version {before.version} to {now.version}")
    if before.text != now.text:
        changes.append(f"evaluation text changed: {before.text} to {now.text}")
    elif before.text_sha256 != now.text_sha256:
        changes.append(f"evaluation text changed: {before.text_sha256[:8]} to {now.text_sha256[:8]} of {now.text}")
    if (before.windows, before.n_ctx) != (now.windows, now.n_ctx):
        then = f"{before.windows} of {before.n_ctx} tokens"
        changes.append(f"windows changed: {then} to {now.windows} of {now.n_ctx}")
    return "; ".join(changes)
