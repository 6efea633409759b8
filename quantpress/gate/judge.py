"""The gate: the checks that a variant must pass to be published. A variant that fails is withheld, with the reason."""

from __future__ import annotations

import math

from quantpress.errors import QuantpressError
from quantpress.evaluation.frontier import SURE
from quantpress.evaluation.sample import speaks
from quantpress.gate.limits import Limit
from quantpress.record.manifest import Verdict
from quantpress.record.measurement import Evaluation

#: Relative difference of perplexity that two engines may have on the unquantized model. They may differ only by their
#: arithmetic (F16 products against float32). Measured: 0.001 % apart on SmolLM2-135M (docs/benchmarks.md).
ENGINE_AGREEMENT = 0.005
#: Ratio to the unquantized perplexity. Beyond it a model no longer writes sensible text. The worst rung that people
#: still use (Q2_K of a small model) lies between 1.5 and 3.
RUINED = 10.0
#: On text that the model knows, a variant's mean divergence (nats per token) is about the logarithm of its perplexity
#: over that of the unquantized model. Measured: 0.8 to 1.7 times that logarithm, for 34 variants and 6 roundings of
#: SmolLM2-135M that diverge by more than 0.01. It was 9.4 times when attention saw the tokens to predict
#: (docs/benchmarks.md).
CONTRADICTION, SLACK = 3.0, 0.5


def judge(evaluation: Evaluation, baseline: Evaluation, limit: Limit | None = None) -> Verdict:
    """Compares a variant's figures with the unquantized model's, measured by the same engine, and with its limit."""
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
    """Says whether perplexity and mean divergence are finite numbers. A missing divergence is not checked."""
    divergence = evaluation.divergence
    return math.isfinite(evaluation.perplexity) and (divergence is None or math.isfinite(divergence.mean))


def contradicts(evaluation: Evaluation, baseline: Evaluation) -> bool:
    """Says whether the mean divergence is several times larger than the perplexity explains.

    False if the divergence was not measured.
    """
    if evaluation.divergence is None:
        return False
    told = max(0.0, math.log(evaluation.perplexity / baseline.perplexity))
    return evaluation.divergence.mean > CONTRADICTION * told + SLACK


def exceeds(evaluation: Evaluation, max_divergence: float) -> bool:
    """Says whether the mean divergence exceeds the limit by more than its measurement error.

    False if the divergence was not measured.
    """
    found = evaluation.divergence
    return found is not None and found.mean - SURE * found.mean_error > max_divergence


def require_agreement(reference: Evaluation, other: Evaluation) -> None:
    """Checks that two engines measure the same perplexity of the unquantized model, with equal token ids.

    Raises :class:`QuantpressError` if they do not: such a difference is a conversion bug.
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
