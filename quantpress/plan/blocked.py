"""Makes the steps that change nothing: what is blocked or left out, and why."""

from __future__ import annotations

from collections.abc import Mapping

from quantpress.errors import BadInput, QuantpressError, Refused, Unreachable, in_words
from quantpress.plan.estimate import Estimate
from quantpress.plan.steps import Step


class NothingPlanned(QuantpressError):
    """Something that every model needs cannot be had."""


#: The errors that end the whole plan, because they concern every model. Every other error blocks only the model, the
#: format or the repository that it comes from.
ENDS_THE_PLAN = (BadInput, Unreachable, NothingPlanned)


def blocked_step(model: str, format_name: str, variant: str, repo_id: str, error: Exception) -> Step:
    """Returns the step for what ``error`` blocks."""
    reason = f"blocked: {in_words(error)}"
    return Step(model=model, format=format_name, variant=variant, repo_id=repo_id, action="block", reason=reason)


def left_out(model: str, format_name: str, repo_id: str, reasons: Mapping[str, str]) -> tuple[Step, ...]:
    """Returns a step for each variant in ``reasons``, which maps a variant's name to the reason.

    A ladder (a list of variants) in the catalog names these variants, but the model cannot have them.
    """
    return tuple(
        Step(
            model=model, format=format_name, variant=name, repo_id=repo_id, action="skip", reason=f"left out: {reason}"
        )
        for name, reason in reasons.items()
    )


def too_large(estimate: Estimate, budget: int) -> Refused:
    """Returns the error for a variant that is larger than the disk budget."""
    return Refused(
        f"about {estimate.upload / 1e9:.2f} GB, more than the disk budget of {budget / 1e9:.2f} GB: "
        "raise QUANTPRESS_DISK_BUDGET or leave the variant out"
    )
