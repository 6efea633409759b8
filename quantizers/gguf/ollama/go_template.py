"""Renders a Go template as Ollama does. Only the actions that :mod:`quantizers.gguf.ollama.files` writes are known.

An action is the text between ``{{`` and ``}}``. This module knows these parts of Go's text/template
(https://pkg.go.dev/text/template): ``range``, ``if``, ``else if``, ``else``, ``end``, fields, variables, and the
functions ``eq``, ``ne``, ``and``, ``len``, ``slice``. Any other action raises a ValueError.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_ACTION = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_TOKEN = re.compile(r'\s*([()]|"(?:[^"\\]|\\.)*"|[^\s()]+)')
_RANGE = re.compile(r"range \$(\w+), \$(\w+) := (.+)")


@dataclass(frozen=True)
class _Text:
    text: str


@dataclass(frozen=True)
class _Value:
    pipeline: str


@dataclass(frozen=True)
class _If:
    """Each branch is a condition and the nodes to run if the condition holds. Branches are tried in order. The
    condition of an ``else`` is None."""

    branches: tuple[tuple[str | None, tuple[_Node, ...]], ...]


@dataclass(frozen=True)
class _Range:
    index: str
    item: str
    pipeline: str
    body: tuple[_Node, ...]


_Node = _Text | _Value | _If | _Range
_Variables = Mapping[str, Any]


def render(template: str, system: str, messages: Sequence[Mapping[str, str]]) -> str:
    """Renders the prompt. Each message has the keys ``Role`` and ``Content``, as in Ollama. Raises ValueError if the
    template has a mistake or an unknown action."""
    parts = _ACTION.split(template)
    # split() returns texts and actions in turn. The first and the last part are texts.
    stream = iter([("action" if number % 2 else "text", part) for number, part in enumerate(parts)])
    nodes, closing = _parse(stream)
    if closing is not None:
        raise ValueError(f"{closing!r} closes nothing")
    root = {"System": system, "Messages": list(messages)}
    return "".join(_run(nodes, {"$": root, ".": root}))


def _parse(stream: Iterator[tuple[str, str]]) -> tuple[tuple[_Node, ...], str | None]:
    """Returns the nodes before the next ``end`` or ``else``, and that action (None at the end of the template)."""
    nodes: list[_Node] = []
    for kind, part in stream:
        action = part.strip()
        if kind == "text":
            nodes.append(_Text(part))
        elif action == "end" or action.startswith("else"):
            return tuple(nodes), action
        elif action.startswith("if "):
            nodes.append(_parse_if(action.removeprefix("if "), stream))
        elif action.startswith("range "):
            nodes.append(_parse_range(action, stream))
        else:
            nodes.append(_Value(action))
    return tuple(nodes), None


def _parse_if(condition: str, stream: Iterator[tuple[str, str]]) -> _If:
    branches: list[tuple[str | None, tuple[_Node, ...]]] = []
    asked: str | None = condition
    while True:
        body, closing = _parse(stream)
        branches.append((asked, body))
        if closing == "end":
            return _If(tuple(branches))
        if closing is None or asked is None:
            raise ValueError("an if without end")
        asked = None if closing == "else" else closing.removeprefix("else if ")


def _parse_range(action: str, stream: Iterator[tuple[str, str]]) -> _Range:
    named = _RANGE.fullmatch(action)
    if named is None:
        raise ValueError(f"not a range over index and item: {action!r}")
    body, closing = _parse(stream)
    if closing != "end":
        raise ValueError("a range without end")
    return _Range(named[1], named[2], named[3], body)


def _run(nodes: Sequence[_Node], variables: _Variables) -> Iterator[str]:
    for node in nodes:
        match node:
            case _Text(text):
                yield text
            case _Value(pipeline):
                yield str(_evaluate(pipeline, variables))
            case _If(branches):
                for condition, body in branches:
                    if condition is None or _evaluate(condition, variables):
                        yield from _run(body, variables)
                        break
            case _Range(index, item, pipeline, body):
                for number, value in enumerate(_evaluate(pipeline, variables)):
                    yield from _run(body, {**variables, f"${index}": number, f"${item}": value, ".": value})


def _evaluate(pipeline: str, variables: _Variables) -> Any:
    tokens = _TOKEN.findall(pipeline)
    value, rest = _command(tokens, variables)
    if rest:
        raise ValueError(f"more than one command: {pipeline!r}")
    return value


def _command(tokens: list[str], variables: _Variables) -> tuple[Any, list[str]]:
    """Returns the value of a function call or of a single operand, and the tokens that follow the call or the
    operand."""
    arguments: list[Any] = []
    function = tokens[0] if tokens and re.fullmatch(r"[a-z]+", tokens[0]) else None
    rest = tokens[1:] if function else tokens
    while rest and rest[0] != ")":
        if rest[0] == "(":
            value, rest = _command(rest[1:], variables)
            if not rest:
                raise ValueError("a parenthesis that is not closed")
            rest = rest[1:]
        else:
            value, rest = _operand(rest[0], variables), rest[1:]
        arguments.append(value)
    if function is not None:
        return _call(function, arguments), rest
    if len(arguments) != 1:
        raise ValueError(f"not one value: {tokens!r}")
    return arguments[0], rest


def _operand(token: str, variables: _Variables) -> Any:
    if token.startswith('"'):
        return token[1:-1]
    if token.isdecimal():
        return int(token)
    name, _, field = token.partition(".")
    try:
        value = variables["." if token.startswith(".") else name]
        return value[field] if field else value
    except (KeyError, TypeError):
        raise ValueError(f"nothing is known as {token}") from None


def _call(function: str, arguments: list[Any]) -> Any:
    match function, arguments:
        case "eq", [left, right]:
            return left == right
        case "ne", [left, right]:
            return left != right
        case "and", [first, *others]:
            return next((value for value in [first, *others] if not value), arguments[-1])
        case "len", [value]:
            return len(value)
        case "slice", [value, start]:
            return value[start:]
    raise ValueError(f"not a function that is known here: {function} of {len(arguments)}")
