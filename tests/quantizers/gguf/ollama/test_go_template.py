"""Our part of Go's text/template, which checks the prompts of Ollama templates."""

from __future__ import annotations

import pytest

from quantizers.gguf.ollama.go_template import render

MESSAGES = [{"Role": "system", "Content": "S"}, {"Role": "user", "Content": "{{ .Role }}"}]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain } text {", "plain } text {"),
        ("{{ .System }}", "be brief"),
        ("{{ range $i, $m := .Messages }}{{ $i }}{{ .Role }}{{ $m.Content }};{{ end }}", "0systemS;1user{{ .Role }};"),
        ('{{ range $i, $m := .Messages }}{{ if eq .Role "user" }}u{{ else }}-{{ end }}{{ end }}', "-u"),
        (
            '{{ range $i, $m := .Messages }}{{ if eq .Role "x" }}x{{ else if ne .Role "user" }}n{{ end }}{{ end }}',
            "n",
        ),
        ("{{ range $i, $m := .Messages }}{{ if eq (len (slice $.Messages $i)) 1 }}last{{ end }}.{{ end }}", ".last."),
        ("{{ if and $.System (eq 1 1) }}yes{{ end }}", "yes"),
        ('{{ if and "" (eq 1 1) }}yes{{ end }}no', "no"),
        ("{{ range $i, $m := .Messages }}{{ $.System }} {{ end }}", "be brief be brief "),
    ],
)
def test_what_it_renders(template: str, text: str) -> None:
    assert render(template, "be brief", MESSAGES) == text


@pytest.mark.parametrize(
    "template",
    [
        "{{ end }}",
        "{{ if .System }}",
        "{{ if .System }}{{ else }}{{ else }}{{ end }}",
        "{{ range .Messages }}{{ end }}",
        "{{ range $i, $m := .Messages }}",
        "{{ .Tools }}",
        "{{ $x }}",
        "{{ .System.Nothing }}",
        "{{ .System | upper }}",
        "{{ html .System }}",
        "{{ eq 1 }}",
        "{{ (len .System }}",
    ],
)
def test_what_is_not_known_is_no_text(template: str) -> None:
    with pytest.raises(ValueError):
        render(template, "be brief", MESSAGES)
