"""Formats of other packages. They are folders with entry points on the search path, like installed packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from quantizers import formats, mistakes, quantizer, third_party, usable
from quantpress.card_templates import templates_fingerprint
from quantpress.errors import BadInput
from tests.support.other_packages import install, site

__all__ = ["site"]

GOOD = """
from quantizers.checkpoint_format import CheckpointFormat

class Format(CheckpointFormat):
    format, suffix, packages, extra = 'mine', "Mine", ("pydantic",), "all"

    def known_names(self): return ["mine-8bit"]
    def ladders(self): return {}
    def default_variants(self, config): return ["mine-8bit"]
    def variant(self, name, config): raise NotImplementedError
    def quantize(self, job): raise NotImplementedError
"""


def test_a_format_of_another_package_comes_after_the_built_in_ones(site: Path) -> None:
    built_in = formats()
    third_party.entry_points.cache_clear()
    install(site, "formats_good", "mine = formats_good:Format", GOOD)

    assert formats() == [*built_in, "mine"]
    assert quantizer("mine").suffix == "Mine"
    assert mistakes() == []
    with pytest.raises(BadInput, match="unknown Mine variant 'mine-8': did you mean 'mine-8bit'"):
        quantizer("mine").check_name("mine-8")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (None, "cannot be loaded (ModuleNotFoundError: No module named"),
        ("1 / 0", "cannot be loaded (ZeroDivisionError: division"),
        ("", "cannot be loaded (AttributeError: module"),
        ("class Format: format = 'mine'", "is not a quantizer because formats_{}:Format lacks check,"),
        (GOOD.replace("'mine'", "'yours'"), "calls itself 'yours': its entry point must have that name"),
    ],
)
def test_one_that_cannot_be_used_is_an_error_of_its_format_alone(
    site: Path, source: str | None, said: str, request: pytest.FixtureRequest
) -> None:
    # Each case has its own module name, because Python would not import a second module of the same name.
    case = str(request.node.callspec.indices["said"])
    install(site, f"formats_{case}", f"mine = formats_{case}:Format", source)

    assert "mine" in formats()
    assert quantizer("gptq").format == "gptq"
    with pytest.raises(BadInput) as bad:
        quantizer("mine")
    assert str(bad.value).startswith(f"format 'mine' of package formats_{case} {said.format(case)}")
    assert "\n" not in str(bad.value)


def test_one_that_cannot_be_used_is_left_out_of_what_is_done_for_all(
    site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install(site, "formats_broken", "mine = formats_broken:Format", "1 / 0")

    assert list(usable()) == [name for name in formats() if name != "mine"]
    assert caplog.messages == [
        "left out: format 'mine' of package formats_broken cannot be loaded (ZeroDivisionError: division by zero): "
        "repair or uninstall the package"
    ]


def test_the_cards_of_another_package_are_made_anew_when_its_template_or_the_base_changes(site: Path) -> None:
    install(site, "formats_card", "mine = formats_card:Format")
    theirs, ours = site / "formats_card" / "templates", site / "ours"
    for folder in (theirs, ours):
        folder.mkdir(parents=True)
    (theirs.parent / "__init__.py").write_text(GOOD)
    (ours / "base.md.jinja").write_text("# {{ title }}")
    (theirs / "mine.md.jinja").write_text('{% extends "base.md.jinja" %}')

    first = templates_fingerprint("mine", ours)
    (ours / "base.md.jinja").write_text("## {{ title }}")
    second = templates_fingerprint("mine", ours)
    (theirs / "mine.md.jinja").write_text('{% extends "base.md.jinja" %} more')

    assert first
    assert len({first, second, templates_fingerprint("mine", ours)}) == 3
    assert templates_fingerprint("other", ours) == ""


def test_two_packages_that_claim_one_name(site: Path) -> None:
    install(site, "formats_one", "mine = formats_one:Format", GOOD)
    install(site, "formats_two", "mine = formats_two:Format", GOOD)

    with pytest.raises(BadInput, match=r"format 'mine' is given by \S+ and \S+: uninstall all but one of them"):
        quantizer("mine")


def test_names_that_are_never_used_are_told(site: Path) -> None:
    install(site, "formats_gptq", "gptq = formats_gptq:Format", GOOD)
    install(site, "formats_path", "../up = formats_path:Format", GOOD)

    assert type(quantizer("gptq")).__module__ == "quantizers.gptq"
    assert "../up" not in formats()
    assert mistakes() == [
        "format '../up' of package formats_path is not used: its name may have lower-case letters, digits, and single"
        " - and . between them",
        "format 'gptq' of package formats_gptq is not used: quantpress has its own of that name",
    ]


def test_importing_the_registry_imports_nothing_heavy() -> None:
    """The test counts modules, not seconds. An imported library would bring hundreds of modules."""
    script = (
        "import sys; before = set(sys.modules); import quantizers; new = set(sys.modules) - before\n"
        "print(len(new)); print(sorted({name.partition('.')[0] for name in new} & set(sys.argv[1].split(','))))"
    )
    heavy = "torch,transformers,numpy,pydantic,gptqmodel,huggingface_hub,prefect,matplotlib,importlib_metadata"
    said = subprocess.run([sys.executable, "-c", script, heavy], capture_output=True, text=True, check=True).stdout

    count, loaded = said.splitlines()
    assert int(count) < 60
    assert loaded == "[]"
