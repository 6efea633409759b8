"""Asks whether a vulnerability is known in what is pinned: ``make audit``.

pip-audit asks the service of the Python package index. It runs in an environment of its own, because nothing else here
needs it. A machine that does not reach the service learns nothing. Then this program says "not run", which is not the
same as "nothing found".
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from quantpress.machine.child import child_environment
from quantpress.text import one_line
from quantpress.toolchain.cache import cache_folder
from quantpress.toolchain.environment import Contents, build_environment

_HERE = Path(__file__).parent
_TOOLS = Contents(_HERE / "audit_tools.txt")
#: Every file of pins but that of PyTorch's build for CPUs. The service knows only the version without ``+cpu``, which
#: constraints.txt has.
_AUDITED = (
    _HERE.parents[1] / "constraints.txt",
    _HERE / "archived_libraries.txt",
    _HERE / "cuda_libraries.txt",
    _TOOLS.pins,
)
#: Seconds to wait for each answer of the service.
_TIMEOUT = 15


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Vulnerability(_Answer):
    id: str
    fix_versions: list[str] = []


class _Package(_Answer):
    name: str
    version: str = ""
    skip_reason: str = ""
    vulns: list[_Vulnerability] = []


class _Report(_Answer):
    dependencies: list[_Package]


@dataclass(frozen=True)
class Audit:
    """What is known of one file of pins. ``found`` has a line for each vulnerability. If the file was not audited, or
    not whole, ``not_run`` says why."""

    file: str
    found: tuple[str, ...] = ()
    not_run: str = ""


def audited(file: Path, report: bytes, said: str) -> Audit:
    """Returns what pip-audit's JSON ``report`` says of ``file``. ``said`` is what it printed. pip-audit exits with code
    1 if it finds something, and also if it cannot ask. Only the report tells the two apart."""
    try:
        packages = _Report.model_validate_json(report).dependencies
    except ValidationError:
        lines = [line for line in said.splitlines() if line.strip()] or ["pip-audit said nothing"]
        return Audit(file.name, not_run=one_line(lines[-1]))
    found = tuple(
        f"{each.name} {each.version}: {hole.id}, mended in {', '.join(hole.fix_versions) or 'no version'}"
        for each in packages
        for hole in each.vulns
    )
    unknown = [each.name for each in packages if each.skip_reason]
    if unknown and len(unknown) == len(packages):
        return Audit(file.name, not_run="the service knows none of the packages, so it is hardly the one of the index")
    return Audit(file.name, found, f"nothing is known of {', '.join(unknown)}" if unknown else "")


def exit_code(audits: list[Audit]) -> int:
    """Returns 1 if something was found, else 2 if something was not audited, else 0."""
    if any(each.found for each in audits):
        return 1
    return 2 if any(each.not_run for each in audits) else 0


def _audit(program: Path, file: Path) -> Audit:
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        command = [str(program), "--requirement", str(file), "--require-hashes", "--disable-pip", "--format", "json"]
        command += ["--output", str(report), "--progress-spinner", "off", "--timeout", str(_TIMEOUT)]
        done = subprocess.run(command, capture_output=True, text=True, env=child_environment(), check=False)
        return audited(file, report.read_bytes() if report.exists() else b"", done.stderr)


def main() -> int:
    try:
        environment = build_environment("audit", _TOOLS, cache_folder(), child_environment())
    except subprocess.CalledProcessError as error:
        print(f"not run: pip could not install pip-audit (exit code {error.returncode})")
        return 2
    audits = [_audit(environment / "bin" / "pip-audit", file) for file in _AUDITED]
    for each in audits:
        for line in each.found:
            print(f"{each.file}: {line}")
        if each.not_run:
            print(f"{each.file}: not run: {each.not_run}")
        elif not each.found:
            print(f"{each.file}: no known vulnerability")
    return exit_code(audits)


if __name__ == "__main__":
    sys.exit(main())
