"""What the environments are made of: every file is pinned by version and hash, and nothing needed is missing."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from quantpress.toolchain.environment import _PRESS_FROM_SOURCE, Contents, normalized, pins_of, versions_of

ROOT = Path(__file__).parents[3]
CONSTRAINTS = ROOT / "constraints.txt"
TOOLCHAIN = ROOT / "quantpress" / "toolchain"
FILES = [CONSTRAINTS, *sorted(TOOLCHAIN.glob("*.txt"))]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements(extra: str) -> Iterator[Requirement]:
    """Returns the requirements of the project and of one of its extras, which may name others."""
    for text in [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"][extra]]:
        requirement = Requirement(text)
        if requirement.name != "quantpress":
            yield requirement
        for inner in requirement.extras if requirement.name == "quantpress" else ():
            yield from requirements(inner)


def test_the_files_of_pins_are_these() -> None:
    names = ["archived_libraries.txt", "audit_tools.txt", "cpu_torch.txt", "cuda_libraries.txt"]
    assert [file.name for file in FILES] == ["constraints.txt", *names]


@pytest.mark.parametrize("file", FILES, ids=[file.name for file in FILES])
def test_every_file_is_pinned_by_version_and_hash(file: Path) -> None:
    found = pins_of(file)
    assert found
    assert versions_of(file).keys() == found.keys()
    for pin in found.values():
        first, *hashes = pin.replace(" \\\n", "\n").split("\n    ")
        assert str(Requirement(first).specifier).startswith("=="), first
        assert hashes, f"{first} has no hash"
        assert all(len(each) == len("--hash=sha256:") + 64 and each.startswith("--hash=sha256:") for each in hashes)
    assert "://" not in file.read_text(encoding="utf-8")


def test_whatever_the_project_asks_for_is_pinned_within_its_range() -> None:
    pinned = versions_of(CONSTRAINTS)
    wanted = list(requirements("dev"))
    assert len(wanted) > 40
    for requirement in wanted:
        assert pinned[normalized(requirement.name)] in requirement.specifier, str(requirement)


def test_the_build_backend_is_pinned_and_is_the_one_that_is_installed() -> None:
    setuptools = versions_of(CONSTRAINTS)["setuptools"]
    assert PROJECT["build-system"]["requires"] == [f"setuptools=={setuptools}"]
    assert versions_of(TOOLCHAIN / "archived_libraries.txt")["setuptools"] == setuptools


def test_torch_is_one_version_everywhere() -> None:
    torch = versions_of(CONSTRAINTS)["torch"]
    assert versions_of(TOOLCHAIN / "archived_libraries.txt")["torch"] == torch
    assert versions_of(TOOLCHAIN / "cpu_torch.txt") == {"torch": f"{torch}+cpu"}


def test_what_is_built_from_source_is_pinned() -> None:
    assert pins_of(CONSTRAINTS).keys() >= set(_PRESS_FROM_SOURCE)


def test_another_hash_is_another_environment(tmp_path: Path) -> None:
    def key(text: str) -> str:
        (tmp_path / "pins.txt").write_text(text)
        return Contents(tmp_path / "pins.txt").key()

    assert key("a==1 --hash=sha256:00\n") == key("a==1 --hash=sha256:00\n")
    assert key("a==1 --hash=sha256:00\n") != key("a==1 --hash=sha256:01\n")


def test_a_pin_is_found_under_any_spelling_of_its_name(tmp_path: Path) -> None:
    file = tmp_path / "pins.txt"
    file.write_text(
        "# why\nRuamel_yaml.Clib==0.2 \\\n    --hash=sha256:00 \\\n    --hash=sha256:01\n\nb==2 ; x < '3' \\\n    -h\n"
    )
    assert pins_of(file)["ruamel-yaml-clib"] == (
        "Ruamel_yaml.Clib==0.2 \\\n    --hash=sha256:00 \\\n    --hash=sha256:01"
    )
    assert versions_of(file) == {"ruamel-yaml-clib": "0.2", "b": "2"}
