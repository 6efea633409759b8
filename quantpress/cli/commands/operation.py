"""The commands for the person who operates quantpress: ``deploy``, ``doctor`` and ``hub --check``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from quantpress.cli.commands.options import DEFAULT_CATALOG, CatalogOption, JsonOption, load_optional
from quantpress.errors import QuantpressError
from quantpress.terminal import say


def deploy(as_json: JsonOption = False) -> None:
    """Registers deployments, work pools and automations with the Prefect server at PREFECT_API_URL. A second call
    changes nothing."""
    from quantpress.cli.deploy import deploy as register

    done = register()
    if as_json:
        say(json.dumps([asdict(each) for each in done], indent=2))
        return
    for each in done:
        say(f"{each.kind} {each.name}: {each.change}")


def doctor(catalog: CatalogOption = DEFAULT_CATALOG, as_json: JsonOption = False) -> None:
    """Shows what this machine has, what is missing, and how to get it. Exits with 1 if the catalog needs a missing
    thing."""
    from quantpress.cli.doctor import examine

    findings = examine(*load_optional(catalog))
    if as_json:
        say(json.dumps([asdict(each) for each in findings], indent=2))
    else:
        for each in findings:
            state = "ok" if each.there else "MISSING" if each.needed else "absent"
            remedy = f"; {each.remedy}" if each.remedy else ""
            say(f"{state:7}  {each.area:9}  {each.name}: {each.detail}{remedy}")
    lacking = [each.name for each in findings if each.lacking]
    if lacking:
        raise QuantpressError(f"missing: {', '.join(lacking)}")


def check_hub(root: Path) -> None:
    """Hashes every object of the embedded Hub in ``root`` again. Exits with 1 if one is wrong or missing."""
    from quantpress.localhub.integrity import check_objects

    faults = 0
    for fault in check_objects(root):
        say(str(fault))
        faults += 1
    if faults:
        raise QuantpressError(f"{root}: objects that are wrong or missing: {faults}; upload their files again")
    say(f"{root}: every object is of its hash")
