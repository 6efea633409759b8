"""Renders an untrusted chat template in a sandbox. The template is a Jinja program that sees only a conversation."""

from __future__ import annotations

from typing import Any, NoReturn

#: The names that a template may read. ``range`` and similar functions are missing, so that no loop is longer than a
#: conversation.
_KNOWN = frozenset({"messages", "add_generation_prompt", "bos_token", "eos_token", "raise_exception", "namespace"})
#: The longest prompt that is accepted, in characters. Around a few sentences, a usual template writes only some hundred
#: characters.
_LONGEST_PROMPT = 100_000

Conversation = list[dict[str, str]]


class Inexpressible(Exception):
    """The template does something that our Go templates cannot do."""


class ChatTemplate:
    """A model's own template, rendered as transformers renders it (utils/chat_template_utils.py).

    ``bos`` and ``eos`` are the texts of the BOS token and the EOS token. If ``adds_bos`` is true, the prompts lack the
    BOS, because the tokenizer adds the BOS. Raises :class:`Inexpressible` if the template asks for more than a
    conversation. Raises jinja2's ``TemplateError`` if the template is broken or tries to leave the sandbox. The
    template is a program, so it can also raise any other error.
    """

    def __init__(self, template: str, bos: str, eos: str, adds_bos: bool) -> None:
        from jinja2 import meta, nodes
        from jinja2.exceptions import SecurityError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        class Environment(ImmutableSandboxedEnvironment):
            intercepted_binops = frozenset({"*", "**", "%"})

            def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
                """Allows ``*`` and ``%`` on integers only, and never allows ``**``. So no text or number can grow
                without limit."""
                if operator == "**" or not isinstance(left, int) or not isinstance(right, int):
                    raise SecurityError(f"{operator} of texts or large numbers")
                return super().call_binop(context, operator, left, right)

        environment = Environment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
        tree = environment.parse(template)
        # If a template sets a name in a branch, jinja2 still counts the name as undeclared. The name is allowed
        # here. But if the template also tests the name ("is defined"), the caller is expected to give it, so the name
        # is not allowed.
        own = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "store"}
        asked = {test.node.name for test in tree.find_all(nodes.Test) if isinstance(test.node, nodes.Name)}
        if meta.find_undeclared_variables(tree) - (own - asked) - _KNOWN:
            raise Inexpressible
        self._bos, self._eos, self._adds_bos = bos, eos, adds_bos
        self._template = environment.from_string(template)

    def render(self, messages: Conversation, reply: bool = True) -> str:
        """Returns the prompt. If the tokenizer adds the BOS, the prompt lacks the BOS."""
        text = self._template.render(
            messages=messages,
            add_generation_prompt=reply,
            bos_token=self._bos,
            eos_token=self._eos,
            raise_exception=_refuse,
        )
        if len(text) > _LONGEST_PROMPT:
            raise Inexpressible
        return text.removeprefix(self._bos) if self._adds_bos and self._bos else text


def _refuse(message: str) -> NoReturn:
    raise Inexpressible(message)
