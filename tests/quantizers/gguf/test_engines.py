"""Whatever llama.cpp does otherwise than transformers, with tokenizer or chat template, is said before costly work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from quantizers.gguf.convert import convert_vocabulary
from quantizers.gguf.dialogue import Rendered, compare, compare_dialogues
from quantizers.gguf.engines import EnginesReport, compare_engines
from quantizers.gguf.stand_in import write_stand_in
from quantizers.gguf.tokenizing import compare_tokenizers
from quantpress.errors import Refused
from quantpress.evaluation.engines.transformers import load_tokenizer
from quantpress.machine.watch import Limits
from quantpress.source.gguf import read_gguf
from quantpress.source.source import chat_template
from quantpress.toolchain.llama_cpp import LlamaCpp

#: What Llama 3.1's template does with a dialogue, in the same statements.
LLAMA = """\
{{- bos_token }}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- if tools is not none %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
  {% for message in messages %}
    {%- if message.role == 'tool' %}
        {{- '<|tool|>' + message.content }}
    {%- elif 'tool_calls' in message %}
        {%- set call = message.tool_calls[0].function %}
        {{- '{"name": "' + call.name + '", "parameters": ' + (call.arguments | tojson) + '}' }}
    {%- else %}
        {{- '<|' + message['role'] + '|>\\n\\n' + message['content'] | trim + '<|eot|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>' }}
{%- endif %}
"""


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may change."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_bytes()) | values))


def converted(tools: LlamaCpp, model: Path) -> Path:
    vocabulary = model.parent / "vocabulary.gguf"
    convert_vocabulary(tools, model, "Tiny", vocabulary)
    return vocabulary


def test_of_two_templates_all_take_transformers(llama_cpp: LlamaCpp, model: Path) -> None:
    """An old template stands in tokenizer_config.json, and a new one in chat_template.jinja."""
    (model / "chat_template.jinja").write_text("NEW{{ messages[0]['content'] }}")
    change(model / "tokenizer_config.json", chat_template="OLD{{ messages[0]['content'] }}")
    before = (model / "tokenizer_config.json").read_bytes()

    in_the_gguf = read_gguf(converted(llama_cpp, model)).text("tokenizer.chat_template")

    assert in_the_gguf == "NEW{{ messages[0]['content'] }}"
    assert chat_template(model) == in_the_gguf
    assert load_tokenizer(model).chat_template == in_the_gguf
    assert (model / "tokenizer_config.json").read_bytes() == before


def test_of_named_templates_the_default_is_taken(model: Path) -> None:
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    change(model / "tokenizer_config.json", chat_template=named)
    assert chat_template(model) == "D"


def test_a_sound_model_makes_the_same_tokens_and_prompts(llama_cpp: LlamaCpp, model: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Some words.\n" * 50)
    report = compare_engines(llama_cpp, model, converted(llama_cpp, model), {"the calibration text": text})
    assert report == EnginesReport(strings=[], template=None)


def test_prompts_are_compared_to_the_last_character(llama_cpp: LlamaCpp, model: Path) -> None:
    """llama.cpp tells templates that they may think, and transformers does not."""
    thinks = "{{ messages[0]['content'] }}{% if enable_thinking is defined %} and thinks{% endif %}"
    found, tokenizer, vocabulary = {}, load_tokenizer(model), converted(llama_cpp, model)
    for name, template in {"sound": LLAMA, "other": thinks, "lacking": "{{ messages | groupby('role') }}"}.items():
        tokenizer.chat_template, with_template = template, model / f"{name}.gguf"
        write_stand_in(vocabulary, with_template, template)
        found[name] = compare(llama_cpp, tokenizer, with_template)

    assert found["sound"] == Rendered()
    assert found["other"].different == (
        "a dialogue with tools, where transformers writes 'You are brief.' and llama.cpp 'You are brief. and thinks'"
    )
    assert found["lacking"].different is None
    assert found["lacking"].lacking is not None
    assert found["lacking"].lacking.startswith("llama.cpp does not render it (what(): ")
    assert "groupby" in found["lacking"].lacking


def test_a_template_that_never_ends_is_ended(llama_cpp: LlamaCpp, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of the test is shorter than that of a press, so that the test is too."""
    monkeypatch.setattr("quantizers.gguf.dialogue._LIMITS", Limits(seconds=60))
    endless = "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}"
    (model / "chat_template.jinja").write_text(endless)
    assert compare_dialogues(model, converted(llama_cpp, model)) == Rendered(
        lacking="no dialogue could be rendered within the limits of time and memory"
    )


def test_a_tokenizer_on_which_llama_cpp_aborts_is_named(llama_cpp: LlamaCpp, model: Path) -> None:
    """Byte-level BPE that claims byte_fallback without tokens for bytes, as transformers writes it from a GGUF file."""
    content = json.loads((model / "tokenizer.json").read_bytes())
    content["model"]["byte_fallback"] = True
    content["decoder"] = {"type": "Sequence", "decoders": [content["decoder"]]}
    change(model / "tokenizer.json", **content)
    stand_in = model.parent / "stand-in.gguf"
    write_stand_in(converted(llama_cpp, model), stand_in)

    with pytest.raises(Refused) as caught:
        compare_tokenizers(llama_cpp, model, stand_in, {})

    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("llama.cpp cannot use its tokenizer: it aborts on numbers (")


def test_a_text_with_other_tokens_is_named(llama_cpp: LlamaCpp, model: Path, tmp_path: Path) -> None:
    """transformers turns "Python" into "Snake" first, and the converter drops such a normalizer."""
    vocabulary, stand_in = converted(llama_cpp, model), tmp_path / "stand-in.gguf"
    write_stand_in(vocabulary, stand_in)
    replaced = {"type": "Replace", "pattern": {"String": "emoji"}, "content": "snake"}
    change(model / "tokenizer.json", normalizer=replaced)
    (tmp_path / "a.txt").write_text("No such word.\n" * 9)
    (tmp_path / "b.txt").write_text("Here is an emoji.\n")

    assert compare_tokenizers(llama_cpp, model, stand_in, {"the calibration text": tmp_path / "a.txt"}) == []
    with pytest.raises(Refused) as caught:
        compare_tokenizers(llama_cpp, model, stand_in, {"the evaluation text": tmp_path / "b.txt"})
    assert str(caught.value).startswith(
        "llama.cpp and transformers give other token ids for the evaluation text, first at token 4, in "
    )


def test_a_hard_string_with_other_tokens_is_named(llama_cpp: LlamaCpp, model: Path, tmp_path: Path) -> None:
    stand_in = tmp_path / "stand-in.gguf"
    write_stand_in(converted(llama_cpp, model), stand_in)
    change(model / "tokenizer.json", normalizer={"type": "NFC"})
    assert compare_tokenizers(llama_cpp, model, stand_in, {}) == ["combining marks"]
