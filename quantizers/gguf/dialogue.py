"""Compares the prompts that transformers and llama.cpp make of a dialogue with a source's chat template.

A rendered dialogue has a system prompt, tools, a call of a tool, the tool's result, and the place for the reply.
llama.cpp's tools take no such dialogue. So the template that llama-completion gets begins with statements that set the
dialogue. What llama.cpp does with a dialogue before it renders (mending what a template does not support) is not
compared.

A template from upstream is an untrusted program. So both engines run in a child process with limits:
``python -m quantizers.gguf.dialogue JOB.json RESULT.json``.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantizers.gguf.stand_in import write_stand_in
from quantpress.errors import ChildFailed
from quantpress.files import write_text
from quantpress.machine.child import explained_exit, run_child
from quantpress.machine.watch import Limits
from quantpress.record.base import Record
from quantpress.source.gguf import read_gguf
from quantpress.text import one_line
from quantpress.toolchain.llama_cpp import LlamaCpp, require
from quantpress.toolchain.run import run_tool

#: The limits of the child process and its tools: ten minutes, and 6 GB, of which Python takes 1 GB with transformers. A
#: template needs milliseconds and a few megabytes, and llama-completion some 200 MB. A template that never ends is
#: ended after ``_CPU_SECONDS``, which count from when the tokenizer is loaded, and in each tool by itself.
_LIMITS, _CPU_SECONDS = Limits(seconds=600, memory=6_000_000_000), 30

_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "The city."}},
                "required": ["city"],
            },
        },
    }
]
_SYSTEM = {"role": "system", "content": "You are brief."}
_USER = {"role": "user", "content": "How warm is it in Zürich?"}
#: Mistral's templates want identifiers of nine letters and digits.
_CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"id": "call00001", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Zürich"}}}
    ],
}
_RESULT = {"role": "tool", "tool_call_id": "call00001", "name": "get_weather", "content": '{"celsius": 21}'}
_SAID, _MORE = {"role": "assistant", "content": "It is 21 °C."}, {"role": "user", "content": "Thanks!\n\nAnd now?"}
#: The dialogues, the fullest first. If transformers cannot render one, because the template takes no tools or no system
#: prompt, the next is compared too.
_DIALOGUES: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]] | None]] = {
    "a dialogue with tools": ([_SYSTEM, _USER, _CALL, _RESULT], _TOOLS),
    "a dialogue with a system prompt": ([_SYSTEM, _USER, _SAID, _MORE], None),
    "a dialogue": ([_USER, _SAID, _MORE], None),
}
#: Matches the prompt in llama-completion's log: it is quoted, and the next line lists its tokens
#: (tools/completion/completion.cpp).
_PROMPT = re.compile(r'^\S+ D prompt: "(.*)"\n\S+ D tokens: \[', re.MULTILINE | re.DOTALL)


#: Matches the folders of a path.
_FOLDERS = re.compile(r"(?<!\S)/(?:[^\s/]+/)+")


class DialogueJob(Record):
    """What the child must know. ``vocabulary`` is a GGUF file with the source's tokenizer and chat template."""

    source: Path
    vocabulary: Path


class Rendered(Record):
    """What the child found.

    ``different`` says of the first dialogue that the engines render differently, where. ``lacking`` says what llama.cpp
    cannot render. Both are None if there is no such dialogue.
    """

    different: str | None = None
    lacking: str | None = None


def compare_dialogues(source: Path, vocabulary: Path) -> Rendered:
    """Compares the prompts of both engines in a child process. If the template takes too much time or memory, the
    result's ``lacking`` says so."""
    with tempfile.TemporaryDirectory(prefix="quantpress-dialogue-") as scratch:
        job = DialogueJob(source=source.resolve(), vocabulary=vocabulary.resolve())
        try:
            return run_child("quantizers.gguf.dialogue", job, Rendered, Path(scratch), _LIMITS)
        except ChildFailed as failure:
            print(failure)
            return Rendered(lacking="no dialogue could be rendered within the limits of time and memory")


def compare(tools: LlamaCpp, tokenizer: Any, vocabulary: Path) -> Rendered:
    """Compares the template in ``vocabulary`` with transformers'. Then compares the prompts of all dialogues that
    transformers can render."""
    template = tokenizer.get_chat_template()
    converted = read_gguf(vocabulary).text("tokenizer.chat_template")
    if converted is None:
        return Rendered(lacking="the GGUF files have no chat template")
    if converted != template:
        return Rendered(different=f"the template itself, {_place(template, converted)}")
    try:
        _rendered(tools, vocabulary, template)
    except ChildFailed as failure:
        return Rendered(lacking=f"llama.cpp does not render it ({_reason(failure)})")
    for name, (messages, functions) in _DIALOGUES.items():
        try:
            ours = tokenizer.apply_chat_template(messages, tools=functions, add_generation_prompt=True, tokenize=False)
        except Exception as refusal:  # the template is a program, and can raise anything
            print(f"transformers does not render {name}: {refusal!r}")
            continue
        try:
            theirs = _rendered(tools, vocabulary, _with_dialogue(template, messages, functions))
        except ChildFailed as failure:
            # The template works by itself, so the statements before it are what llama.cpp cannot do.
            print(f"{name} is not compared: {failure}")
            continue
        bos = tokenizer.bos_token or ""
        if ours.removeprefix(bos) != theirs.removeprefix(bos):
            return Rendered(different=f"{name}, {_place(ours.removeprefix(bos), theirs.removeprefix(bos))}")
    return Rendered()


def _rendered(tools: LlamaCpp, vocabulary: Path, template: str) -> str:
    """Returns the prompt that llama-completion makes with ``template``.

    Raises :class:`ChildFailed` if it makes none.
    """
    with tempfile.TemporaryDirectory() as scratch:
        model, log = Path(scratch) / "stand-in.gguf", Path(scratch) / "log.txt"
        write_stand_in(vocabulary, model, template)
        command: list[str | Path] = [tools.completion, "--model", model, "--jinja", "--skip-chat-parsing"]
        command += ["--prompt", "x", "--single-turn", "--n-predict", "1", "--log-verbosity", "5", "--no-warmup"]
        command += ["--simple-io", "--no-display-prompt", "--threads", "1", "--device", "none"]
        run_tool(command, Path(scratch), environment={"GGML_NO_BACKTRACE": "1"}, errors=log)
        found = _PROMPT.findall(log.read_text(encoding="utf-8", errors="replace"))
    if not found:
        raise ChildFailed("llama-completion printed no prompt")
    return str(found[-1])


def _with_dialogue(template: str, messages: list[dict[str, Any]], functions: list[dict[str, Any]] | None) -> str:
    """Returns a template that sets the dialogue and then does what ``template`` does.

    The last statement ends with a line break, which Jinja drops (``trim_blocks``). So ``template`` begins a line.
    """
    values: Mapping[str, Any] = {"messages": messages, "tools": functions, "add_generation_prompt": True}
    return "".join(f"{{% set {name} = {_literal(value)} %}}\n" for name, value in values.items()) + template


def _literal(value: Any) -> str:
    """Returns a value as Jinja writes it. JSON differs in ``null`` alone."""
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def _place(ours: str, theirs: str) -> str:
    at = next((place for place, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), None)
    place = min(len(ours), len(theirs)) if at is None else at
    begin = max(0, place - 20)
    return f"where transformers writes {ours[begin : place + 20]!r} and llama.cpp {theirs[begin : place + 20]!r}"


def _reason(failure: ChildFailed) -> str:
    """Returns why a tool failed, in one line, without folders of this machine."""
    return one_line(_FOLDERS.sub("", failure.cause or str(failure).splitlines()[0]))


def main(job_file: Path, result_file: Path) -> None:
    from quantpress.evaluation.engines.transformers import load_tokenizer

    job = DialogueJob.model_validate_json(job_file.read_bytes())
    tokenizer = load_tokenizer(job.source)
    spent = int(time.process_time()) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (spent + _CPU_SECONDS, spent + _CPU_SECONDS))
    named = tokenizer.chat_template
    has_one = bool(named.get("default") if isinstance(named, dict) else named)
    found = compare(require(), tokenizer, job.vocabulary) if has_one else Rendered()
    write_text(result_file, found.model_dump_json())


if __name__ == "__main__":
    with explained_exit():
        main(Path(sys.argv[1]), Path(sys.argv[2]))
