"""Makes the files that the Hub uses to serve a GGUF repo to Ollama: ``template``, ``system`` and ``params``
(https://huggingface.co/docs/hub/ollama).

Ollama renders prompts with Go templates, but models come with Jinja templates. This module renders the model's own
template for conversations of known words. So it learns the text that the template puts around the words of each role.
It writes this text as a Go template. Then it checks the Go template: both templates must render a set of conversations,
most of them new, the same to the last character. If the two templates differ, this module makes no files, and the Hub
and Ollama do what they would do without this press. (No message in the check has blanks around it, because some
templates trim these blanks.) If a template takes tools, documents or switches, this module makes no files either,
because a Go template for half of the Jinja template would be worse than what the Hub itself makes of the Jinja
template.

A template from upstream is an untrusted program. So it runs in a sandbox, in a child process with limits:
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

from quantizers.gguf.ollama.chat_rendering import ChatTemplate, Conversation, Inexpressible
from quantizers.gguf.ollama.go_template import render
from quantpress.errors import ChildFailed, Refused
from quantpress.files import write_text
from quantpress.machine.child import explained_exit, run_child
from quantpress.machine.watch import Limits
from quantpress.record.base import Record
from quantpress.source.source import chat_template
from quantpress.source.tokenizer import (
    TOKENIZER_FILE,
    Tokenizer,
    TokenizerConfig,
    generation_config,
    token_text,
    tokenizer,
    tokenizer_config,
)

#: Limits of the child process. A template of three roles needs milliseconds and a few megabytes. Python itself takes
#: some 100 MB in the child.
_CPU_SECONDS = 20
_MEMORY_BYTES = 2_000_000_000
_LIMITS = Limits(seconds=10 * _CPU_SECONDS)

#: Words that no template contains. They include characters that a template could treat in a special way: line breaks,
#: quotes, braces, ``<``, ``&`` and ``>``.
_SYSTEM, _USER, _ASSISTANT, _MORE = "Qsystem\nsaid", 'Quser\'s "first"', "Qassistant <&> {x}", "Quser asked\n\nagain"


def _conversation(*words: str) -> Conversation:
    roles = {_SYSTEM: "system", _USER: "user", _MORE: "user", _ASSISTANT: "assistant"}
    return [{"role": roles[word], "content": word} for word in words]


class OllamaJob(Record):
    """What the child process must know. ``template`` is the model's Jinja template. ``bos`` and ``eos`` are the texts
    of the BOS token and the EOS token. If ``adds_bos`` is true, the tokenizer adds the BOS by itself, so Ollama's
    template must not add it."""

    template: str
    bos: str
    eos: str
    adds_bos: bool


class Expressed(Record):
    """The child's result: ``template`` is the Go template, and ``system`` is the system prompt that the model's own
    template adds to a conversation without a system prompt.

    ``template`` is None if the Jinja template cannot be expressed. ``after_assistant`` is the text that ends the
    model's words.
    """

    template: str | None = None
    system: str = ""
    after_assistant: str = ""


@dataclass(frozen=True)
class _Frame:
    """The texts before and after the words of each role. ``start`` comes before everything. ``reply`` is the text that
    asks for the model's words.

    If ``nested`` is true, the system prompt stands within the first user turn. Otherwise it stands before that turn.
    """

    start: str
    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    reply: str
    nested: bool

    def go(self) -> str:
        """Returns the Go template. Raises :class:`Inexpressible` if a text contains ``{{`` or ``}}``, because Go would
        read the text as an action."""
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
    """Looks for a Go template that agrees with the Jinja template of ``job``. If there is none, the result's
    ``template`` is None."""
    from jinja2 import TemplateError

    # An untrusted template can raise these errors. If it tries to leave the sandbox, jinja2 raises a TemplateError.
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
    """Learns the text around the words of each role, and the default system prompt. Raises :class:`Inexpressible` if
    the template changes these words, or if it does not put the same texts around them everywhere."""
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
    """Renders the conversation ``said`` and returns the texts before, between and after ``words``.

    Raises :class:`Inexpressible` unless the rendered text contains each of the ``words`` exactly once and in order.
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
    """Whether both templates render the same text for six conversations. Four of them were not used for learning."""
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
    # If a conversation ends with the model's words, the model must continue these words. So nothing may follow them.
    begun = [_SYSTEM, _USER, _ASSISTANT]
    text = jinja.render(_conversation(*begun), reply=False)
    return text[: text.rindex(_ASSISTANT) + len(_ASSISTANT)] == _ollama(go, default, begun)


def _ollama(go: str, default: str, words: Sequence[str]) -> str:
    """Returns the prompt that Ollama makes of a conversation.

    If the conversation has no system prompt, Ollama puts the model's default system prompt first (server/routes.go).
    Ollama also joins all system prompts of a conversation in ``.System`` (template/template.go).
    """
    messages = [{"Role": each["role"], "Content": each["content"]} for each in _conversation(*words)]
    if default and words[0] != _SYSTEM:
        messages.insert(0, {"Role": "system", "Content": default})
    return render(go, "\n\n".join(each["Content"] for each in messages if each["Role"] == "system"), messages)


def ollama_files(source: Path) -> dict[str, str]:
    """Returns a dict from the name of each file to its text, for a fetched source. The dict is empty if the source has
    no chat template, if its tokenizer's files are malformed, or if no Go template agrees with the chat template.

    The file ``system`` is made only if the model's template has a default system prompt. The file ``params`` is made
    only if a token ends the model's words.
    """
    try:
        template = chat_template(source)
        configuration, added, generation = tokenizer_config(source), tokenizer(source), generation_config(source)
    except Refused:
        return {}  # the check of the source says what is wrong
    if template is None:
        return {}
    bos, eos = token_text(configuration.bos_token), token_text(configuration.eos_token)
    adds_bos = _adds_bos(configuration, added if (source / TOKENIZER_FILE).exists() else None, bos)
    job = OllamaJob(template=template, bos=bos, eos=eos, adds_bos=adds_bos)
    with tempfile.TemporaryDirectory(prefix="quantpress-ollama-") as scratch:
        try:
            found = run_child("quantizers.gguf.ollama.files", job, Expressed, Path(scratch), _LIMITS)
        except ChildFailed:
            return {}  # out of time or memory
    if found.template is None:
        return {}
    files = {"template": found.template}
    if found.system:
        files["system"] = found.system
    ends = [eos, found.after_assistant.strip()]
    if stop := _stop_tokens(added, generation.eos_token_ids, ends):
        files["params"] = json.dumps({"stop": stop}, indent=2, ensure_ascii=False) + "\n"
    return files


def _adds_bos(configuration: TokenizerConfig, file: Tokenizer | None, bos: str) -> bool:
    """Whether the GGUF file's tokenizer adds ``bos`` by itself. This function reads what ``gguf.SpecialVocab`` reads.
    ``file`` is None if there is no tokenizer.json. If the files do not say whether to add a BOS, llama.cpp adds a BOS
    for SentencePiece only."""
    if configuration.add_bos_token is not None:
        return configuration.add_bos_token
    if file is None:
        return True
    return bool(bos) and json.dumps(bos) in json.dumps(file.post_processor)


def _stop_tokens(file: Tokenizer, ids: Sequence[int], ends: Sequence[str]) -> list[str]:
    """Returns the texts of the tokens that end a reply: the tokens ``ids``, and what stands in ``ends``.

    ``ends`` are the text of the EOS token and the text that the template writes after a reply. The latter counts only
    if it is a token.
    """
    added = {token.id: token.content for token in file.added_tokens or []}
    eos, after_assistant = ends
    texts = [added.get(each, "") for each in ids]
    texts += [eos, after_assistant if after_assistant in added.values() else ""]
    return list(dict.fromkeys(text for text in texts if text))


def main(job_file: Path, result_file: Path) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    job = OllamaJob.model_validate_json(job_file.read_bytes())
    write_text(result_file, express(job).model_dump_json())


if __name__ == "__main__":
    with explained_exit():
        main(Path(sys.argv[1]), Path(sys.argv[2]))
