"""What is printed is text: nothing in it moves the cursor, clears the screen or hides other text."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantpress.cli.app import main
from quantpress.cli.tables import print_verification
from quantpress.errors import BadInput
from quantpress.record.clients import Resolved
from quantpress.record.verification import Spoken, Verification, VerifiedFile
from quantpress.terminal import console, print_plain_logs, say

#: Clears the screen, sets the clipboard, and turns the text around.
EVIL = "\x1b[2Ja\x1b]52;c;ZXZpbA==\x07b\x9b31m\u202ec\r"
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")


def test_names_from_a_stranger_reach_the_terminal_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_verification(
        Verification(
            [VerifiedFile(EVIL, 1, EVIL)], [Spoken(EVIL, EVIL, "")], [Resolved("Ollama", EVIL, EVIL, note=EVIL)]
        )
    )
    printed = capsys.readouterr().out
    assert not _CONTROL.search(printed)
    assert printed.startswith("[2Ja]52;c;ZXZpbA==b31mc")


def test_an_error_reaches_the_terminal_as_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise BadInput(f"no {EVIL}")

    monkeypatch.setattr("quantpress.cli.app.app", refuse)
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err.replace("\n", "|") == "quantpress: no [2Ja]52;c;ZXZpbA==b31mc|"


def test_a_table_keeps_its_own_codes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    console().print("sound", style="red")
    assert capsys.readouterr().out == "\x1b[31msound\x1b[0m\n"


def test_a_log_is_printed_as_text() -> None:
    """Prefect's handler prints the lines of a run. It stands at the root logger as soon as a flow is imported."""
    import flows.nightly  # noqa: F401

    (handler,) = (each for each in logging.getLogger().handlers if type(each).__name__ == "PrefectConsoleHandler")
    for _ in range(2):
        print_plain_logs()
    record = logging.LogRecord("prefect.flow_runs", logging.WARNING, "", 0, "%s is blocked: %d", (EVIL, 5), None)
    handler.filter(record)
    assert record.getMessage() == "[2Ja]52;c;ZXZpbA==b31mc\n is blocked: 5"
    assert len(handler.filters) == 1


@given(st.text())
def test_whatever_is_said_is_text(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("builtins.print", lambda line, **_: printed.append(line))
        say(text)
    assert not _CONTROL.search(printed[0])


def test_the_command_line_prints_nowhere_else() -> None:
    house = Path(__file__).parents[2] / "quantpress" / "cli"
    other = re.compile(r"(?<![\w.])print\(|typer\.echo|click\.echo|Console\(|sys\.std(out|err)\.write")
    assert [str(path) for path in sorted(house.rglob("*.py")) if other.search(path.read_text())] == []
