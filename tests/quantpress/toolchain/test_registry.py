"""What the program ``quantpress toolchain`` prints, and what the archived libraries' environment is made of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from quantpress.errors import Refused
from quantpress.toolchain import archived_libraries


def call(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "quantpress", "toolchain", *arguments],
        env=os.environ | {"QUANTPRESS_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_is_missing_is_listed_with_the_command_that_installs_it(tmp_path: Path) -> None:
    rows = {row["name"]: row for row in json.loads(call(tmp_path, "list", "--json").stdout)}

    assert {"llama.cpp", "archived-libraries"} <= set(rows)
    assert rows["archived-libraries"]["version"] is None
    assert "missing: quantpress toolchain install archived-libraries\n" in call(tmp_path, "list").stdout


def test_an_unknown_toolchain_is_bad_input(tmp_path: Path) -> None:
    done = call(tmp_path, "install", "archived")

    assert done.returncode == 2
    assert done.stderr == "quantpress: unknown toolchain 'archived': did you mean 'archived-libraries'?\n"


def test_an_unfinished_environment_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTPRESS_CACHE", str(tmp_path))
    folder = archived_libraries.folder()
    (folder / "bin").mkdir(parents=True)

    assert archived_libraries.find() is None
    with pytest.raises(Refused, match="run `quantpress toolchain install archived-libraries`"):
        archived_libraries.require()
    (folder / "complete").touch()
    assert archived_libraries.require() == folder / "bin" / "python"


def test_every_version_is_pinned() -> None:
    pins = archived_libraries.pins()

    assert (pins["auto-gptq"], pins["autoawq"]) == ("0.7.1", "0.2.9")
    assert (pins["transformers"], pins["peft"], pins["torch"]) == ("4.51.3", "0.14.0", "2.13.0")
    text = Path(archived_libraries.__file__).with_name("archived_libraries.txt").read_text()
    assert "://" not in text
