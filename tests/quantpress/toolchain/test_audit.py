"""What ``make audit`` makes of pip-audit's reports. Not every machine reaches its service, so it is not asked here."""

from __future__ import annotations

import json
from pathlib import Path

from quantpress.toolchain.audit import Audit, audited, exit_code

PINS = Path("constraints.txt")


def report(**packages: list[dict[str, object]]) -> bytes:
    found = [{"name": name, "version": "1.0", "vulns": vulns} for name, vulns in packages.items()]
    return json.dumps({"dependencies": found, "fixes": []}).encode()


def test_nothing_found() -> None:
    audit = audited(PINS, report(a=[], b=[]), "No known vulnerabilities found")
    assert audit == Audit("constraints.txt")
    assert exit_code([audit]) == 0


def test_what_is_found_is_named_with_the_version_that_mends_it() -> None:
    holes: list[dict[str, object]] = [
        {"id": "PYSEC-1", "fix_versions": ["1.1", "2.0"], "aliases": [], "description": "x"},
        {"id": "GHSA-2", "fix_versions": []},
    ]
    audit = audited(PINS, report(a=holes, b=[]), "Found 2 known vulnerabilities in 1 package")
    assert audit.found == ("a 1.0: PYSEC-1, mended in 1.1, 2.0", "a 1.0: GHSA-2, mended in no version")
    assert exit_code([audit, Audit("b", not_run="x")]) == 1


def test_a_service_out_of_reach_is_not_run_and_no_success() -> None:
    said = "WARNING: slow\nERROR:pip_audit._cli:Could not connect to the vulnerability feed\x1b[0m\n"
    for content in (b"", b"{", b"[]"):
        audit = audited(PINS, content, said)
        assert audit.not_run == "ERROR:pip_audit._cli:Could not connect to the vulnerability feed [0m"
        assert exit_code([Audit("a"), audit]) == 2
    assert audited(PINS, b"", "").not_run == "pip-audit said nothing"


def test_packages_that_the_service_does_not_know_are_not_audited() -> None:
    unknown = {"name": "a", "skip_reason": "Dependency not found on PyPI and could not be audited: a (1.0)"}
    known = {"name": "b", "version": "1.0", "vulns": []}

    one = audited(PINS, json.dumps({"dependencies": [unknown, known]}).encode(), "")
    # A mirror without the service answers 404 for every package, and pip-audit exits with code 0.
    none = audited(PINS, json.dumps({"dependencies": [unknown]}).encode(), "No known vulnerabilities found")

    assert one.not_run == "nothing is known of a"
    assert none.not_run == "the service knows none of the packages, so it is hardly the one of the index"
    assert exit_code([one]) == exit_code([none]) == 2
