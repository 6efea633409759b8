"""The files with which the Hub serves a GGUF repo to Ollama: ``template``, ``system`` and ``params``
(https://huggingface.co/docs/hub/ollama).

Ollama renders prompts with Go templates, but models come with Jinja templates. This module renders the model's own
template for conversations of known words and so learns the text around the words of each role. It writes that as a Go
template and then checks it: both templates must render other conversations the same, to the last character. If they do
not, there are no files, and the Hub and Ollama do what they would do without this press. (The check ignores blanks
around a message, which some templates trim.) A template that takes tools, documents or switches is not expressed at
all: half of it would be less than what the Hub makes of it by itself.

A template from upstream is an untrusted program. It runs in a sandbox, in a child process with limits:
``python -m quantizers.gguf.ollama.files JOB.json RESULT.json``.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantizers.gguf.ollama.chat_rendering import ChatTemplate, Conversation, Inexpressible
from quantizers.gguf.ollama.go_template import render
from quantpress.errors import ChildFailed
from quantpress.files import write_text
from quantpress.machine.child import explained_exit, run_child
from quantpress.record.base import Record
from quantpress.source.source import chat_template

#: A template of three roles needs milliseconds and a few megabytes; Python itself takes some 100 MB here.
_CPU_SECONDS = 20
_MEMORY_BYTES = 2_000_000_000

#: Words that no template contains. They hold what a template could trip over: line breaks, quotes, braces, Go's words.
_SYSTEM, _USER, _ASSISTANT, _MORE = "Qsystem\nsaid", 'Quser\'s "first"', "Qassistant <&> {x}", "Quser asked\n\nagain"


def _conversation(*words: str) -> Conversation:
    roles = {_SYSTEM: "system", _USER: "user", _MORE: "user", _ASSISTANT: "assistant"}
    return [{"role": roles[word], "content": word} for word in words]


class OllamaJob(Record):
    """``template`` is Jinja. ``bos`` and ``eos`` are the texts of these tokens. ``adds_bos`` says that the tokenizer
    adds the BOS by itself; then Ollama's template must not add it."""

    template: str
    bos: str
    eos: str
    adds_bos: bool


class Expressed(Record):
    """The Go template, and the system prompt that the model's own template adds to a conversation without one.

    ``template`` is None if the Jinja template cannot be expressed. ``after_assistant`` is the text that ends the
    model's words.
    """

    template: str | None = None
    system: str = ""
    after_assistant: str = ""


@dataclass(frozen=True)
class _Frame:
    """The text around the words of each role. ``start`` comes before everything, ``reply`` asks for the model's words.

    ``nested`` says that a system prompt stands within the first user's turn, not before it.
    """

    start: str
    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    reply: str
    nested: bool

    def go(self) -> str:
        """The Go template. Raises :class:`Inexpressible` if Go would take a text for an action."""
        for text in (self.start, *self.system, *self.user, *self.assistant, self.reply):
            if "{{" in text or "}}" in text:
                raise Inexpressible
        last = "(len (slice $.Messages $i)) 1"
        system = f"{self.system[0]}{{{{ .Content }}}}{self.system[1]}"
        nested = f"{{{{ if and $.System (eq $i 1) }}}}{self.system[0]}{{{{ $.System }}}}{self.system[1]}{{{{ end }}}}"
        return (
            f"{self.start}{{{{ range $i, $m := .Messages }}}}"
            f'{{{{ if eq .Role "system" }}}}{"" if self.nested else system}'
            f'{{{{ else if eq .Role "user" }}}}{self.user[0]}{nested if self.nested else ""}'
            f"{{{{ .Content }}}}{self.user[1]}"
            f'{{{{ else if eq .Role "assistant" }}}}{self.assistant[0]}{{{{ .Content }}}}'
            f"{{{{ if ne {last} }}}}{self.assistant[1]}{{{{ end }}}}{{{{ end }}}}"
            f'{{{{ if and (ne .Role "assistant") (eq {last}) }}}}{self.reply}{{{{ end }}}}{{{{ end }}}}'
        )


def express(job: OllamaJob) -> Expressed:
    """The Go template for a Jinja template. ``template`` is None if no Go template agrees with it."""
    from jinja2 import TemplateError

    # The errors that an untrusted template can raise. A breach of the sandbox is a TemplateError.
    failures = (Inexpressible, TemplateError, ValueError, TypeError, ArithmeticError, LookupError, RecursionError)
    with suppress(*failures):
        jinja = ChatTemplate(job.template, job.bos, job.eos, job.adds_bos)
        for nested in (False, True):
            with suppress(Inexpressible):
                around, default = _learn(jinja, nested)
                go = around.go()
                if _agree(jinja, go, default):
                    return Expressed(template=go, system=default, after_assistant=around.assistant[1])
    return Expressed()


def _learn(jinja: ChatTemplate, nested: bool) -> tuple[_Frame, str]:
    """Learns the text around the words, and the default system prompt. Raises :class:`Inexpressible`."""
    before, after_user, after_assistant = _pieces(jinja, [_USER, _ASSISTANT, _MORE], [_USER, _ASSISTANT, _MORE])[:3]
    (user_end,) = _pieces(jinja, [_USER], [_USER], reply=False)[1:]
    (assistant_end,) = _pieces(jinja, [_USER, _ASSISTANT], [_USER, _ASSISTANT], reply=False)[2:]
    (reply_end,) = _pieces(jinja, [_USER], [_USER])[1:]
    user_start = _without_start(after_assistant, assistant_end)
    system_start, between = _pieces(jinja, [_SYSTEM, _USER], [_SYSTEM, _USER])[:2]
    default = ""
    if nested:
        start = _without_end(before, user_start)
        system = _without_start(system_start, before), between
    else:
        system_end = _without_end(between, user_start)
        if len(before) > len(system_start + between) and before.startswith(system_start) and before.endswith(between):
            default = before[len(system_start) : len(before) - len(between)]
            start, system = "", (system_start, system_end)
        else:
            start = _without_end(before, user_start)
            system = _without_start(system_start, start), system_end
    return _Frame(
        start=start,
        system=system,
        user=(user_start, user_end),
        assistant=(_without_start(after_user, user_end), assistant_end),
        reply=_without_start(reply_end, user_end),
        nested=nested,
    ), default


def _pieces(jinja: ChatTemplate, said: Sequence[str], words: Sequence[str], reply: bool = True) -> list[str]:
    """The text before, between and after the words.

    Raises :class:`Inexpressible` unless each word is there exactly once and in order.
    """
    rest = jinja.render(_conversation(*said), reply)
    found = []
    for word in words:
        if rest.count(word) != 1:
            raise Inexpressible
        piece, _, rest = rest.partition(word)
        found.append(piece)
    return [*found, rest]


def _without_start(text: str, start: str) -> str:
    if not text.startswith(start):
        raise Inexpressible
    return text[len(start) :]


def _without_end(text: str, end: str) -> str:
    if not text.endswith(end):
        raise Inexpressible
    return text[: len(text) - len(end)]


def _agree(jinja: ChatTemplate, go: str, default: str) -> bool:
    """Whether both templates also render the same for conversations that were not used for learning."""
    asked = [
        [_USER],
        [_SYSTEM, _USER],
        [_MORE, _ASSISTANT, _USER],
        [_SYSTEM, _USER, _ASSISTANT, _MORE],
        [_SYSTEM, _MORE, _ASSISTANT, _USER, _ASSISTANT, _MORE, _ASSISTANT, _USER],
    ]
    for words in asked:
        if jinja.render(_conversation(*words)) != _ollama(go, default, words):
            return False
    # If a conversation ends with the model's words, the model continues these words.
    begun = [_SYSTEM, _USER, _ASSISTANT]
    text = jinja.render(_conversation(*begun), reply=False)
    return text[: text.rindex(_ASSISTANT) + len(_ASSISTANT)] == _ollama(go, default, begun)


def _ollama(go: str, default: str, words: Sequence[str]) -> str:
    """The prompt that Ollama makes of a conversation.

    Ollama puts its default system prompt first if the conversation has none (server/routes.go). It also joins all
    system prompts in ``.System`` (template/template.go).
    """
    messages = [{"Role": each["role"], "Content": each["content"]} for each in _conversation(*words)]
    if default and words[0] != _SYSTEM:
        messages.insert(0, {"Role": "system", "Content": default})
    return render(go, "\n\n".join(each["Content"] for each in messages if each["Role"] == "system"), messages)


def ollama_files(source: Path) -> dict[str, str]:
    """The files for a fetched source, as text by name. Empty if its chat template is missing or cannot be expressed.

    ``system`` is there only if the model's template has a default system prompt, ``params`` only if a token ends the
    model's words.
    """
    template = chat_template(source)
    if template is None:
        return {}
    configuration = _json(source / "tokenizer_config.json")
    bos, eos = (_token(configuration.get(key)) for key in ("bos_token", "eos_token"))
    job = OllamaJob(template=template, bos=bos, eos=eos, adds_bos=_adds_bos(source, configuration, bos))
    with tempfile.TemporaryDirectory(prefix="quantpress-ollama-") as scratch:
        try:
            found = run_child("quantizers.gguf.ollama.files", job, Expressed, Path(scratch), timeout=10 * _CPU_SECONDS)
        except ChildFailed:
            return {}  # out of time or memory
    if found.template is None:
        return {}
    files = {"template": found.template}
    if found.system:
        files["system"] = found.system
    if stop := _stop_tokens(source, configuration, found.after_assistant.strip()):
        files["params"] = json.dumps({"stop": stop}, indent=2, ensure_ascii=False) + "\n"
    return files


def _json(file: Path) -> dict[str, Any]:
    content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return content if isinstance(content, dict) else {}


def _token(value: object) -> str:
    """A token's text. The tokenizer's configuration holds it as a string or within an object."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else ""


def _adds_bos(source: Path, configuration: dict[str, Any], bos: str) -> bool:
    """Whether the GGUF file's tokenizer adds ``bos`` by itself. It reads what ``gguf.SpecialVocab`` reads. If the files
    do not say it, llama.cpp adds a BOS for SentencePiece only."""
    said = configuration.get("add_bos_token")
    if isinstance(said, bool):
        return said
    if not (source / "tokenizer.json").exists():
        return True
    processor = _json(source / "tokenizer.json").get("post_processor")
    return bool(bos) and json.dumps(bos) in json.dumps(processor)


def _stop_tokens(source: Path, configuration: dict[str, Any], after_assistant: str) -> list[str]:
    """Texts of the tokens that end a reply: the configured ones, and the one that the template writes after a reply."""
    added = {token.get("id"): _token(token) for token in _json(source / "tokenizer.json").get("added_tokens") or []}
    ids = _json(source / "generation_config.json").get("eos_token_id")
    texts = [added.get(each, "") for each in (ids if isinstance(ids, list) else [ids])]
    texts += [_token(configuration.get("eos_token")), after_assistant if after_assistant in added.values() else ""]
    return list(dict.fromkeys(text for text in texts if text))


def main(job_file: Path, result_file: Path) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    job = OllamaJob.model_validate_json(job_file.read_bytes())
    write_text(result_file, express(job).model_dump_json())


if __name__ == "__main__":
    with explained_exit():
        main(Path(sys.argv[1]), Path(sys.argv[2]))
