"""What the quality gate lets through, what it withholds, and which of its limits the catalog can change."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantizers.gguf.limits import LIMITS, SCOREBOARD
from quantizers.protocol import Variant
from quantpress.catalog.reader import parse_catalog
from quantpress.catalog.schema import GateLine
from quantpress.errors import BadInput, QuantpressError
from quantpress.evaluation.sample import speaks
from quantpress.gate.judge import judge, require_agreement
from quantpress.gate.limits import Limit, limit_of
from quantpress.record.measurement import Evaluation, Protocol
from tests.support import samples

BASELINE = samples.evaluation(16.1)


def measured(mean: float, error: float = 0.0001, **changes: object) -> Evaluation:
    evaluation = samples.evaluation(16.2, mean)
    assert evaluation.divergence is not None
    divergence = evaluation.divergence.model_copy(update={"mean_error": error})
    return evaluation.model_copy(update={"divergence": divergence, **changes})


def variant(name: str, format_name: str = "gguf") -> Variant:
    return Variant(format=format_name, name=name, parameters={}, nominal_bits=4.0)


@pytest.mark.parametrize(
    ("rung", "limit"),
    [
        ("Q8_0", 0.003),
        ("Q6_K", 0.01),
        ("Q5_K_M", 0.02),
        ("Q4_K_M", 0.05),
        ("Q3_K_M", 0.15),
        ("BF16", 0.003),
        ("Q4_K_L", 0.05),
        ("Q3_K_XL", 0.14),
        ("IQ3_M", None),
        ("Q2_K_L", None),
        ("MXFP4", None),
    ],
)
def test_default_limits(rung: str, limit: float | None) -> None:
    assert LIMITS.get(rung) == limit
    assert limit_of(variant(rung), {}) == (None if limit is None else Limit(limit))


def test_other_formats_have_no_limits_by_default() -> None:
    assert limit_of(variant("gptq-4bit-64g-actorder_True", "gptq"), {}) is None


def test_the_model_of_the_scoreboard_passes_all_limits_and_twice_and_a_half_its_figures_pass_none() -> None:
    for rung, (scoreboard, _) in SCOREBOARD.items():
        limit = limit_of(variant(rung), {})
        assert judge(measured(scoreboard), BASELINE, limit).passed, rung
        assert not judge(measured(2.5 * scoreboard, 0.0), BASELINE, limit).passed, rung


def test_what_diverges_too_far_is_withheld_with_its_figures() -> None:
    verdict = judge(measured(0.0612, 0.001), BASELINE, limit_of(variant("Q4_K_M"), {}))
    assert verdict.reasons == ["mean KLD 0.0612 ± 0.0010 is above the limit of 0.05"]
    assert (verdict.passed, verdict.max_divergence, verdict.notes) == (False, 0.05, [])


def test_two_standard_errors_are_no_difference() -> None:
    limit = Limit(0.05)
    assert judge(measured(0.0519, 0.001), BASELINE, limit).passed
    assert not judge(measured(0.0521, 0.001), BASELINE, limit).passed


def test_the_catalog_changes_a_limit_and_the_verdict_says_why() -> None:
    changes = {"Q8_0": GateLine(max_divergence=0.006, reason="a small model")}
    verdict = judge(measured(0.0042), BASELINE, limit_of(variant("Q8_0"), changes))
    assert verdict.passed
    assert verdict.notes == ["the limit of its mean KLD is 0.006 for this model, not 0.003: a small model"]
    assert not judge(measured(0.0042), BASELINE, limit_of(variant("Q8_0"), {})).passed


def test_the_catalog_sets_a_limit_where_there_is_none() -> None:
    changes = {"awq-4bit-64g": GateLine(max_divergence=0.1, reason="ours")}
    verdict = judge(measured(0.2), BASELINE, limit_of(variant("awq-4bit-64g", "awq"), changes))
    assert verdict.reasons == ["mean KLD 0.2000 ± 0.0001 is above the limit of 0.1"]
    assert judge(measured(0.2), BASELINE, limit_of(variant("awq-4bit-64g", "awq"), {})).passed


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        ("{Q4_K_M: {max_divergence: 0.08}}", "catalog.yaml:3: models[0].gates.Q4_K_M.reason: Field required"),
        (
            "{Q4_K_M: {max_divergence: 0.08, reason: ''}}",
            "catalog.yaml:3: models[0].gates.Q4_K_M.reason: String should have at least 1 character",
        ),
        (
            "{Q4_K_M: {max_divergense: 0.08, reason: x}}",
            "catalog.yaml:3: unknown key 'max_divergense'; did you mean 'max_divergence'?",
        ),
        (
            "{Q4_KM: {max_divergence: 0.08, reason: x}}",
            "catalog.yaml:3: 'Q4_KM' is no variant of the formats gguf, gptq, awq, exl3, exl2, torchao, bitsandbytes, "
            "compressed-tensors, reference",
        ),
        (
            "{Q4_K_M: {max_divergence: 0, reason: x}}",
            "catalog.yaml:3: models[0].gates.Q4_K_M.max_divergence: Input should be greater than 0",
        ),
    ],
)
def test_mistakes_in_gates_are_explained(gates: str, message: str) -> None:
    with pytest.raises(BadInput) as error:
        parse_catalog(f"models:\n  - repo: a/M\n    gates: {gates}\n", "catalog.yaml")
    assert message in str(error.value).splitlines()


def test_ruined_and_incomparable_figures_are_withheld() -> None:
    ruined = samples.evaluation(161.1)
    assert judge(ruined, BASELINE).reasons == ["perplexity 161.10 is more than 10 times the unquantized model's 16.10"]
    unsound = samples.evaluation(16.2).model_copy(update={"non_finite": 3})
    assert judge(unsound, BASELINE).reasons == ["3 of 10200 scored positions are not finite numbers"]
    other = Protocol(text="pydoc-topics", text_sha256="e" * 64, windows=40)
    assert judge(samples.evaluation(16.2, protocol=other), BASELINE).reasons == [
        "measured under another protocol than the unquantized model"
    ]


def test_a_divergence_that_perplexity_contradicts_is_withheld() -> None:
    """ExLlamaV2 0.3.2 measured the first figures on an H100, with attention that saw later tokens.

    The last figures are those of IQ1_S of the same model.
    """
    baseline = samples.evaluation(23.45)
    verdict = judge(samples.evaluation(27.11, 1.3631), baseline)
    assert verdict.reasons == [
        "mean KLD 1.3631 contradicts a perplexity of 27.11 where the unquantized model has 23.45: it does not compute "
        "what the unquantized model does"
    ]
    assert judge(samples.evaluation(26.978, 0.9804), samples.evaluation(10.586)).passed


def test_what_is_not_finite_is_withheld_with_its_count() -> None:
    nan = math.nan
    all_broken = measured(nan, nan, perplexity=nan, perplexity_error=nan, non_finite=10200)
    read_back = Evaluation.model_validate_json(all_broken.model_dump_json())
    assert judge(read_back, BASELINE, limit_of(variant("Q8_0"), {})).reasons == [
        "10200 of 10200 scored positions are not finite numbers"
    ]
    for uncounted in (measured(0.01, perplexity=nan), measured(0.01, perplexity=math.inf), measured(nan)):
        assert judge(uncounted, BASELINE).reasons == ["its figures are not finite numbers"]
    baseline = BASELINE.model_copy(update={"perplexity": nan})
    assert judge(measured(0.01), baseline).reasons == [
        "the unquantized model's figures are not finite numbers: nothing can be compared"
    ]


def test_a_variant_that_does_not_speak_is_withheld_only_if_the_model_does() -> None:
    speaking = BASELINE.model_copy(update={"sample": "a young girl named Lily"})
    for silent in ("", "!!!!!!!!", "the the the the the"):
        verdict = judge(measured(0.01, sample=silent), speaking)
        assert verdict.reasons == [f"it writes {silent!r} where the unquantized model writes text"]
        assert judge(measured(0.01, sample=silent), BASELINE.model_copy(update={"sample": "...."})).passed
    assert judge(measured(0.01, sample="a young boy named Tom"), speaking).passed
    assert judge(measured(0.01, sample=None), speaking).passed


@given(st.lists(st.text(min_size=1, max_size=6), min_size=2, max_size=16, unique_by=lambda word: word[0]))
def test_two_different_words_are_speech(words: list[str]) -> None:
    letters = "".join("".join(words).split())
    assert speaks(" ".join(words)) or len(set(letters)) < 2


@pytest.mark.parametrize("healthy", ["very very tired", "ha ha", "他住在海邊", "an old man. He was an old man."])
def test_repetition_within_reason_is_speech(healthy: str) -> None:
    assert speaks(healthy)


def test_engines_that_disagree_on_the_unquantized_model_stop_the_format() -> None:
    require_agreement(BASELINE, samples.evaluation(16.18))
    with pytest.raises(QuantpressError, match=r"perplexity 16\.1000 and 16\.2000, 0\.62% apart \(at most 0\.5%\)"):
        require_agreement(BASELINE, samples.evaluation(16.2))
