"""The small files beside the weights: what the card and Ollama's files need of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from quantizers.gguf.ollama.files import ollama_files
from quantpress.errors import Refused
from quantpress.source.safety import check_folder
from quantpress.source.source import chat_template
from quantpress.source.tokenizer import FILES, check_tokenizer_files
from quantpress.source.weights import WeightsJob
from quantpress.source.weights import main as check
from tests.support.foreign import objects

CONFIG = json.dumps({"model_type": "llama"})


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("chat_template.json", "[]", "is not a JSON object"),
        ("chat_template.json", '"x"', "is not a JSON object"),
        ("chat_template.json", "{", "is not JSON"),
        (
            "chat_template.json",
            '{"chat_template": 5}',
            "has a wrong chat_template.str (Input should be",
        ),
        ("tokenizer_config.json", '{"bos_token": 1}', "has a wrong bos_token.str (Input should be a valid string)"),
        ("generation_config.json", '{"eos_token_id": "2"}', "has a wrong eos_token_id.constrained-int"),
    ],
)
def test_a_malformed_file_is_found_before_anything_is_fetched(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    (tmp_path / "config.json").write_text(CONFIG)
    check_folder(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(Refused) as refused:
        check_folder(tmp_path)
    assert str(refused.value).startswith(f"its {name} {said}")
    assert ollama_files(tmp_path) == {}


def test_a_malformed_tokenizer_is_found_when_the_source_is_there(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"added_tokens": {"id": 5}}')
    with pytest.raises(Refused, match=r"^its tokenizer\.json has a wrong added_tokens \(Input should be"):
        check_tokenizer_files(tmp_path)


def test_the_check_of_the_weights_reads_the_tokenizer_too(tmp_path: Path) -> None:
    """The cards and Ollama's files are made after the long work. So a press reads their files before it."""
    (tmp_path / "tokenizer.json").write_text("[]")
    job = tmp_path / "job"
    job.write_text(WeightsJob(source=tmp_path).model_dump_json())
    with pytest.raises(Refused, match=r"^its tokenizer\.json is not a JSON object$"):
        check(job, tmp_path / "result")


def test_what_transformers_writes_is_read(tmp_path: Path) -> None:
    files: dict[str, Any] = {
        "tokenizer_config.json": {
            "bos_token": None,
            "eos_token": {"__type": "AddedToken", "content": "</s>", "special": True},
            "model_max_length": 10**30,
            "chat_template": [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}],
        },
        "generation_config.json": {"eos_token_id": [2, 7], "temperature": 0.6, "bos_token_id": None},
        "chat_template.json": {"chat_template": "{{ messages }}"},
        "tokenizer.json": {"added_tokens": [{"id": 2, "content": "</s>", "lstrip": False}], "post_processor": None},
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    check_tokenizer_files(tmp_path)
    assert chat_template(tmp_path) == "a"


@pytest.mark.foreign
@given(
    objects(
        *("chat_template", "bos_token", "eos_token", "add_bos_token", "eos_token_id", "added_tokens", "post_processor")
    )
)
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("files")
    for name in FILES:
        (folder / name).write_text(json.dumps(content))
    for read in (check_tokenizer_files, chat_template):
        try:
            read(folder)
        except Refused as refusal:
            assert "\n" not in str(refusal)
