"""The gate: the checks that a variant must pass before it is published. A variant that fails is withheld: its files are
not published, and the manifest records the reason."""

from __future__ import annotations

import math

from quantpress.errors import QuantpressError
from quantpress.evaluation.frontier import SURE
from quantpress.evaluation.sample import speaks
from quantpress.gate.limits import Limit
from quantpress.record.manifest import Verdict
from quantpress.record.measurement import Evaluation

#: The largest allowed relative difference between the perplexities that two engines measure for the unquantized model.
#: The engines may differ only in their arithmetic (F16 products against float32). Measured on SmolLM2-135M: 0.001 %
#: apart (docs/benchmarks.md).
ENGINE_AGREEMENT = 0.005
#: The largest allowed ratio of a variant's perplexity to the unquantized model's. Above this ratio a model no longer
#: writes sensible text. The worst variant that people still use (Q2_K of a small model) has a ratio between 1.5 and 3.
RUINED = 10.0
#: A mean divergence above ``CONTRADICTION`` times the log ratio plus ``SLACK`` contradicts the perplexity. The log
#: ratio is the logarithm of the variant's perplexity divided by the unquantized model's. If the text were drawn from
#: the unquantized model, the expected log ratio would be the mean divergence (nats per token). On real text, the
#: divergence was 0.8 to 1.7 times the log ratio, for 34 variants of SmolLM2-135M and for 6 copies whose weights were
#: only rounded to nearest (docs/evaluation.md). All these models diverge by more than 0.01. When an engine computed
#: attention without the causal mask, so that every token saw the tokens after it, the divergence was 9.4 times the log
#: ratio: 1.3631 against ln(27.11 / 23.45) (docs/benchmarks.md, EXL2).
CONTRADICTION, SLACK = 3.0, 0.5


def judge(evaluation: Evaluation, baseline: Evaluation, limit: Limit | None = None) -> Verdict:
    """Returns the verdict on a variant with the figures ``evaluation``.

    ``baseline`` are the unquantized model's figures, measured by the same engine. ``limit`` is the variant's limit, or
    None if it has no limit.
    """
    reasons = []
    if evaluation.protocol != baseline.protocol:
        reasons.append("measured under another protocol than the unquantized model")
    if evaluation.token_sha256 != baseline.token_sha256:
        reasons.append("its tokenizer gives other token ids than the unquantized model's")
    if evaluation.non_finite:
        reasons.append(f"{evaluation.non_finite} of {evaluation.scored_tokens} scored positions are not finite numbers")
    elif not _finite(evaluation):
        reasons.append("its figures are not finite numbers")
    elif not _finite(baseline):
        reasons.append("the unquantized model's figures are not finite numbers: nothing can be compared")
    elif evaluation.perplexity > RUINED * baseline.perplexity:
        reasons.append(
            f"perplexity {evaluation.perplexity:.2f} is more than {RUINED:.0f} times the unquantized model's "
            f"{baseline.perplexity:.2f}"
        )
    elif contradicts(evaluation, baseline):
        assert evaluation.divergence is not None
        reasons.append(
            f"mean KLD {evaluation.divergence.mean:.4f} contradicts a perplexity of {evaluation.perplexity:.2f} where "
            f"the unquantized model has {baseline.perplexity:.2f}: it does not compute what the unquantized model does"
        )
    if limit is not None and exceeds(evaluation, limit.max_divergence):
        assert evaluation.divergence is not None
        found = evaluation.divergence
        reasons.append(
            f"mean KLD {found.mean:.4f} ± {found.mean_error:.4f} is above the limit of {limit.max_divergence:g}"
        )
    if evaluation.sample is not None and not speaks(evaluation.sample) and speaks(baseline.sample):
        reasons.append(f"it writes {evaluation.sample[:40]!r} where the unquantized model writes text")
    return Verdict(
        passed=not reasons,
        reasons=reasons,
        max_divergence=limit.max_divergence if limit else None,
        notes=[limit.changed] if limit and limit.changed else [],
    )


def _finite(evaluation: Evaluation) -> bool:
    """Says whether perplexity and mean divergence are finite numbers. Ignores a divergence that was not measured."""
    divergence = evaluation.divergence
    return math.isfinite(evaluation.perplexity) and (divergence is None or math.isfinite(divergence.mean))


def contradicts(evaluation: Evaluation, baseline: Evaluation) -> bool:
    """Says whether the mean divergence is much larger than the variant's perplexity can explain.

    Returns False if the divergence was not measured.
    """
    if evaluation.divergence is None:
        return False
    told = max(0.0, math.log(evaluation.perplexity / baseline.perplexity))
    return evaluation.divergence.mean > CONTRADICTION * told + SLACK


def exceeds(evaluation: Evaluation, max_divergence: float) -> bool:
    """Says whether the mean divergence is above ``max_divergence`` by more than ``SURE`` times its standard error.

    Returns False if the divergence was not measured.
    """
    found = evaluation.divergence
    return found is not None and found.mean - SURE * found.mean_error > max_divergence


def require_agreement(reference: Evaluation, other: Evaluation) -> None:
    """Checks that two engines use equal token ids and measure nearly the same perplexity of the unquantized model.

    Raises :class:`QuantpressError` if they do not, because then the model was converted wrongly for one engine.
    """
    pair = f"{reference.engine} and {other.engine}"
    if reference.token_sha256 != other.token_sha256:
        raise QuantpressError(f"{pair} tokenize the evaluation text differently: the conversion is wrong")
    apart = abs(other.perplexity / reference.perplexity - 1)
    if not apart <= ENGINE_AGREEMENT:
        raise QuantpressError(
            f"{pair} disagree on the unquantized model: perplexity {reference.perplexity:.4f} and "
            f"{other.perplexity:.4f}, {apart:.2%} apart (at most {ENGINE_AGREEMENT:.1%}): the conversion is wrong"
        )
