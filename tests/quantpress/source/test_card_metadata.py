"""What our cards inherit of a stranger's card: texts, and nothing that breaks a manifest."""

from __future__ import annotations

from typing import Any

import pytest
from huggingface_hub.hf_api import ModelInfo
from hypothesis import given

from quantpress.errors import Refused
from quantpress.record.manifest import SourceRecord
from quantpress.source.card_metadata import CardMetadata, card_metadata
from quantpress.source.source import source_record
from tests.support.foreign import JSON, objects


def test_texts_are_kept_and_the_rest_is_left_out() -> None:
    known = card_metadata(
        {
            "language": ["en", 5, False, None, "x" * 3000],
            "license": ["mit", "other"],
            "license_name": {"a": 1},
            "license_link": "https://mit.edu",
            "tags": "one",
            "pipeline_tag": "\ud800",
        }
    )
    assert known == CardMetadata(
        language=["en"], license=["mit", "other"], license_link="https://mit.edu", tags=["one"]
    )


@pytest.mark.parametrize(
    ("language", "languages"), [(5, []), (False, []), (["en", 5, False], ["en"]), ({"en": 1}, []), ("en", ["en"])]
)
def test_a_language_that_is_none_is_left_out(language: Any, languages: list[str]) -> None:
    """In YAML, ``no`` (Norwegian) is False."""
    info = ModelInfo(id="up/M", sha="a" * 40, cardData={"license": "mit", "language": language})
    record = source_record("up/M", info, ())
    assert (record.license, record.language) == ("mit", languages)


@pytest.mark.foreign
@given(
    objects("language", "license", "license_name", "license_link", "tags", "pipeline_tag", "extra_gated_prompt"),
    JSON,
    JSON,
    JSON,
)
def test_any_metadata_is_read_or_refused(card: dict[str, Any], tag: Any, gated: Any, sha: Any) -> None:
    """huggingface_hub makes an object of what the Hub answers. What is read of it can be written to a manifest."""
    for given_sha, given_gated in (("a" * 40, False), (sha, gated)):
        try:
            info = ModelInfo(id="up/M", sha=given_sha, cardData=card, pipeline_tag=tag, gated=given_gated)
        except (TypeError, ValueError, AttributeError, KeyError):
            return  # look_up_source refuses what the client cannot read
        try:
            record = source_record("up/M", info, ())
        except Refused as refusal:
            assert str(refusal).startswith("the Hub ") and given_sha == sha
        else:
            assert SourceRecord.model_validate_json(record.model_dump_json()) == record
