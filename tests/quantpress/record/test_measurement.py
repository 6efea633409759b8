"""Records of broken models. Figures that are not finite numbers are written and read back unchanged."""

from __future__ import annotations

import math

import numpy as np

from quantpress.evaluation.divergence import summary
from quantpress.record.manifest import Manifest, Verdict, parse_manifest
from quantpress.record.measurement import Evaluation
from tests.support import samples


def broken() -> Evaluation:
    """Returns the figures of a model that gives nothing but NaN."""
    nothing = summary(np.array([math.nan]), np.array([False]))
    changes = {"perplexity": math.nan, "perplexity_error": math.nan, "non_finite": 10200, "divergence": nothing}
    return samples.evaluation(16.1).model_copy(update=changes)


def test_a_broken_models_record_is_read_back_as_it_was_written() -> None:
    text = broken().model_dump_json()
    again = Evaluation.model_validate_json(text)

    assert '"perplexity":"NaN","perplexity_error":"NaN"' in text
    assert again == broken()
    assert math.isnan(again.perplexity) and again.non_finite == 10200
    assert again.divergence is not None and math.isnan(again.divergence.mean)
    assert again.model_dump_json() == text


def test_a_manifest_holds_a_broken_variant() -> None:
    entry = samples.entry("gguf", "Q2_K", bits=2.9, divergence=0.5, withheld="broken")
    verdict = Verdict(passed=False, reasons=["broken"], max_divergence=math.inf)
    entry = entry.model_copy(update={"evaluation": broken(), "verdict": verdict})
    manifest: Manifest = samples.gguf(entries=[entry])

    again = parse_manifest(manifest.to_json(), "press/M-GGUF")

    assert again == manifest
    assert again.to_json() == manifest.to_json()
