"""A press over a line on which every kind of request meets every kind of fault. Nothing is lost or published twice."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from quantpress.localhub.server import RunningHub
from tests.support.history import assert_published_once
from tests.support.line import Fault, Line, Request
from tests.support.operating import Operator, PrefectServer

pytestmark = pytest.mark.slow

MODEL = "upstream/Tiny-Instruct"
REPO = "press/Tiny-Instruct-GGUF"
LADDER = ["Q4_0", "Q5_0", "Q8_0"]


class Dose:
    """Decides which requests meet a fault.

    Two of every three commits and uploads do, with all six faults in turn. One of ten other requests does, at random.
    """

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._seen: Counter[str] = Counter()

    def __call__(self, request: Request) -> Fault | None:
        faults = list(Fault)
        if request.kind not in {"commit", "upload"}:
            return self._chance.choice(faults) if self._chance.random() < 0.1 else None
        number = self._seen[request.kind]
        self._seen[request.kind] += 1
        return None if number % 3 == 2 else faults[(number - number // 3) % len(faults)]


def test_every_variant_is_published_once(
    hub: RunningHub, line: Line, tmp_path: Path, tiny_model: Path, prefect_api: PrefectServer
) -> None:
    token = hub.create_token("press", "write")
    Operator(tmp_path, hub, token).upload_source(MODEL, tiny_model)
    press = Operator(tmp_path, replace(hub, endpoint=line.endpoint), token, prefect_api)
    press.write_catalog(
        [{"repo": MODEL, "formats": ["gguf"], "variants": {"gguf": LADDER}}], calibration={"samples": 2, "length": 128}
    )
    line.decide = Dose(seed=5)
    code, _, err = press.call("run")
    assert code == 0, err
    met = {(request.kind, fault) for request, fault in line.seen if fault}
    assert met >= {(kind, fault) for kind in ("commit", "upload") for fault in Fault}
    assert {fault for kind, fault in met if kind in {"download", "other"}} == set(Fault)
    assert_published_once(hub.root, REPO, LADDER)
    assert not list((tmp_path / "home" / "work").glob("*"))
