"""Ollama files from chat templates of the known families. For some other templates it is better to write none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quantizers.gguf.ollama.files import OllamaJob, express, ollama_files
from quantizers.gguf.ollama.go_template import render

ROLES = "{% for m in messages %}"
END = "{% endfor %}"
ASK = "{% if add_generation_prompt %}"

CHATML = (
    ROLES + "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}" + END + ASK
    + "{{ '<|im_start|>assistant\n' }}{% endif %}"
)  # fmt: skip
CHATML_WITH_DEFAULT = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind<|im_end|>\n' }}{% endif %}" + CHATML
)
LLAMA3 = (
    "{{ bos_token }}" + ROLES
    + "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + (m['content'] | trim) + '<|eot_id|>' }}"
    + END + ASK + "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)  # fmt: skip
ZEPHYR = (
    ROLES
    + "{% if m['role'] == 'user' %}\n{{ '<|user|>\n' + m['content'] + eos_token }}\n"
    + "{% elif m['role'] == 'system' %}\n{{ '<|system|>\n' + m['content'] + eos_token }}\n"
    + "{% elif m['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + m['content'] + eos_token }}\n{% endif %}\n"
    + "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n" + END
)  # fmt: skip
# The system prompt goes into the user's first turn, and the assistant's role is called "model".
GEMMA3 = (
    "{{ bos_token }}{% set first = '' %}{% if messages[0]['role'] == 'system' %}"
    "{% set first = messages[0]['content'] + '\n\n' %}{% set rest = messages[1:] %}"
    "{% else %}{% set rest = messages %}{% endif %}{% for m in rest %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else 'user') + '\n' }}"
    "{{ (first if loop.first else '') + m['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}" + ASK + "{{ '<start_of_turn>model\n' }}{% endif %}"
)
ALPACA = (
    ROLES
    + "{% if m['role'] == 'system' %}{{ m['content'] + '\n\n' }}"
    + "{% elif m['role'] == 'user' %}{{ '### Instruction:\n' + m['content'] + '\n\n' }}"
    + "{% else %}{{ '### Response:\n' + m['content'] + '\n\n' }}{% endif %}"
    + END + ASK + "{{ '### Response:\n' }}{% endif %}"
)  # fmt: skip
FAMILIES = {
    "chatml": CHATML, "default": CHATML_WITH_DEFAULT, "llama3": LLAMA3, "zephyr": ZEPHYR, "gemma3": GEMMA3,
    "alpaca": ALPACA,
}  # fmt: skip

TALK = [
    {"Role": "system", "Content": "Be brief."},
    {"Role": "user", "Content": "Hi"},
    {"Role": "assistant", "Content": "Ho"},
    {"Role": "user", "Content": "Bye"},
]


def job(template: str, *, adds_bos: bool = True, bos: str = "<bos>") -> OllamaJob:
    return OllamaJob(template=template, bos=bos, eos="</s>", adds_bos=adds_bos)


@pytest.mark.parametrize(
    ("family", "prompt"),
    [
        (
            "chatml",
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
            "<|im_start|>assistant\nHo<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            "llama3",
            "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHo<|eot_id|><|start_header_id|>user"
            "<|end_header_id|>\n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        (
            "zephyr",
            "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHo</s>\n<|user|>\nBye</s>\n<|assistant|>\n",
        ),
        (
            "gemma3",
            "<start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHo<end_of_turn>\n"
            "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n",
        ),
        (
            "alpaca",
            "Be brief.\n\n### Instruction:\nHi\n\n### Response:\nHo\n\n### Instruction:\nBye\n\n### Response:\n",
        ),
    ],
)
def test_a_known_family_becomes_a_go_template(family: str, prompt: str) -> None:
    found = express(job(FAMILIES[family]))
    assert found.template is not None
    assert render(found.template, "Be brief.", TALK) == prompt
    assert found.system == ""


def test_a_default_system_prompt_is_a_file_of_its_own() -> None:
    found = express(job(CHATML_WITH_DEFAULT))
    assert found.system == "Be kind"
    assert found.template == express(job(CHATML)).template


def test_a_reply_that_is_begun_is_gone_on_with() -> None:
    template = express(job(CHATML)).template
    assert template is not None
    assert render(template, "", [TALK[1], TALK[2]]).endswith("<|im_start|>assistant\nHo")


def test_the_first_token_stands_in_the_template_where_no_tokenizer_adds_it() -> None:
    with_it, without = express(job(LLAMA3, adds_bos=False)).template, express(job(LLAMA3)).template
    assert with_it == f"<bos>{without}"


@pytest.mark.parametrize(
    "template",
    [
        pytest.param(CHATML.replace("m['role'] +", "m['role'] + (tools | string) +"), id="tools"),
        pytest.param(CHATML + "{% if enable_thinking %}<think>{% endif %}", id="switch"),
        pytest.param("{% if tools is not defined %}{% set tools = none %}{% endif %}" + CHATML, id="maybe tools"),
        pytest.param("{{ strftime_now('%d %b %Y') }}" + CHATML, id="today"),
        pytest.param(
            ROLES + "{% if m['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}" + END + CHATML,
            id="no system",
        ),
        pytest.param(ROLES + "{{ loop.index ~ m['content'] }}" + END, id="numbered"),
        pytest.param(ROLES + "{{ m['content'] | upper }}" + END, id="changed words"),
        pytest.param(ROLES + "{{ m['content'] }}{{ m['content'] }}" + END, id="twice"),
        pytest.param(CHATML.replace("m['content']", "m['content'][:9]"), id="cut"),
        pytest.param("{{ '{' ~ '{ .System }' ~ '}' }}" + CHATML, id="braces"),
        pytest.param("constant", id="constant"),
        pytest.param("{% for", id="broken"),
        pytest.param("{{ messages.append(1) }}" + CHATML, id="changes its input"),
        pytest.param("{{ ''.__class__.__mro__ }}" + CHATML, id="looks around"),
        pytest.param("{{ 'a' * 10 ** 10 }}" + CHATML, id="large text"),
        pytest.param("{% for x in range(10 ** 9) %}{% endfor %}" + CHATML, id="long loop"),
        pytest.param("{{ '%s' % 'a' }}" + CHATML, id="format"),
        pytest.param("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}" + CHATML, id="endless"),
    ],
)
def test_what_cannot_be_said_in_go_is_left_to_ollama(template: str) -> None:
    assert express(job(template)).template is None


def put(folder: Path, template: str | None = CHATML_WITH_DEFAULT, **files: Any) -> Path:
    configuration = {"bos_token": {"content": "<s>"}, "eos_token": "<|endoftext|>", "chat_template": template}
    tokens = [{"id": 0, "content": "<|endoftext|>"}, {"id": 2, "content": "<|im_end|>"}, {"id": 3, "content": "<eom>"}]
    content = {"tokenizer_config": configuration, "tokenizer": {"added_tokens": tokens}} | files
    for name, value in content.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def test_the_files_of_a_source(tmp_path: Path) -> None:
    files = ollama_files(put(tmp_path, generation_config={"eos_token_id": [3, 99]}))
    assert set(files) == {"template", "system", "params"}
    assert files["system"] == "Be kind"
    # The generation's end token, the tokenizer's end token, and the text that the template writes after a reply.
    assert json.loads(files["params"]) == {"stop": ["<eom>", "<|endoftext|>", "<|im_end|>"]}


def test_no_template_no_files(tmp_path: Path) -> None:
    assert ollama_files(put(tmp_path, None)) == {}
    assert ollama_files(put(tmp_path, "{{ tools }}" + CHATML)) == {}


def test_a_template_that_never_ends_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loops = "".join(f"{{% for x{depth} in messages[0]['content'] %}}" for depth in range(9)) + "{% endfor %}" * 9
    monkeypatch.setattr("quantizers.gguf.ollama.files._CPU_SECONDS", 0.2)
    assert ollama_files(put(tmp_path, loops + CHATML)) == {}
