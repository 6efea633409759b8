"""The packages (rooms) keep their order: every room has a layer (floor), and CI sees an import of a higher floor."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

HOUSE = Path(__file__).parents[2]
PACKAGES = ("quantpress", "quantizers", "flows", "benchmarks")
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def modules() -> list[Path]:
    return [path for package in (*PACKAGES, "tests") for path in sorted((HOUSE / package).rglob("*.py"))]


def test_every_room_has_a_floor() -> None:
    contracts = tomllib.loads((HOUSE / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (floors,) = (contract["layers"] for contract in contracts if contract["id"] == "floors")
    named = {module for layer in floors for module in re.split(r" [|:] ", layer)}
    rooms = {f"quantpress.{path.name}" for path in (HOUSE / "quantpress").iterdir() if (path / "__init__.py").exists()}
    alone = {f"quantpress.{path.stem}" for path in (HOUSE / "quantpress").glob("[!_]*.py")}
    assert (rooms | alone | {"flows", "quantizers"}) - named == {"quantpress.localhub"}


#: A dict from each module that breaks a contract to the import that breaks it and the contract's name.
BREACHES = {
    "quantpress/hub/upward.py": ("quantpress.press.stages", "A room knows only the rooms below it"),
    "quantpress/gate/aside.py": ("quantpress.publish.commit", "A room knows only the rooms below it"),
    "quantpress/record/round.py": ("quantpress.record.about", "Nothing imports in a circle"),
    "quantpress/record/about.py": ("quantpress.record.round", "Nothing imports in a circle"),
    "quantpress/plan/flow.py": ("prefect", "Prefect is imported in flows/ and"),
    "quantizers/flow.py": ("flows.nightly", "Quantizers know nothing of the flows"),
    "quantpress/verify/hub.py": ("quantpress.localhub.server", "The embedded Hub stands aside"),
    "quantpress/localhub/plan.py": ("quantpress.record.manifest", "The embedded Hub knows errors, files"),
    "benchmarks/sample.py": ("tests.support.samples", "Nothing but tests imports tests"),
}


def test_who_breaks_a_contract_is_told(tmp_path: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(HOUSE / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(HOUSE / "pyproject.toml", tmp_path)
    for module, (imported, _) in BREACHES.items():
        (tmp_path / module).write_text(f"import {imported}\n")

    lint = [sys.executable, "-c", LINT]
    found = subprocess.run(lint, cwd=tmp_path, capture_output=True, text=True, check=False)

    said = re.sub(r"\s+", " ", found.stdout)
    assert found.returncode == 1
    for module, (_, contract) in BREACHES.items():
        assert re.search(rf"{re.escape(contract)}((?!KEPT|BROKEN).)*BROKEN", said), contract
        importer = module.removesuffix(".py").rpartition("/")[2]
        assert re.search(rf"\.{importer} ->|-> \.{importer} ", said), module


def test_a_fresh_process_that_imports_the_command_line_has_nothing_heavy() -> None:
    program = (
        "import sys, quantizers, quantpress.cli.app; print({'torch', 'transformers', 'prefect'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


def test_modules_are_short_and_few_lie_in_the_hallway() -> None:
    assert [str(path) for path in modules() if len(path.read_text().splitlines()) > 300] == []
    assert len(list((HOUSE / "quantpress").glob("*.py"))) <= 10
