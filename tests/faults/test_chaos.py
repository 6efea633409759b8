"""SIGKILL hits the press and the Hub at random instants. Every variant is published once, every revision was whole.

``make chaos`` kills 50 times, which takes long. The test that runs with the other tests kills six times.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from quantpress.comparison.report import read_manifests
from quantpress.comparison.state import why_outdated
from quantpress.localhub.server import running_hub
from tests.faults.chaos import AtRequest, Chaos, MortalHub, random_instants
from tests.support.history import assert_published_once
from tests.support.line import bad_line
from tests.support.operating import Operator, PrefectServer

MODEL = "upstream/Tiny-Instruct"
REPO, COMPARISON = "Tiny-Instruct-GGUF", "Tiny-Instruct-quantized"
LADDER = ["Q4_0", "Q4_K_M", "Q5_0", "Q6_K", "Q8_0"]


@pytest.fixture
def chaos(tmp_path: Path, tiny_model: Path, prefect_api: PrefectServer) -> Iterator[Chaos]:
    with running_hub(tmp_path / "hub") as hub:
        token = hub.create_token("press", "write")
        Operator(tmp_path, hub, token).upload_source(MODEL, tiny_model)
    with bad_line("") as line:
        mortal = MortalHub(tmp_path / "hub", line)
        operator = Operator(tmp_path, replace(mortal.now, endpoint=line.endpoint), token, prefect_api)
        yield Chaos(operator, mortal, line)
        mortal.close()


def carry_on(
    chaos: Chaos, kills: int, ladder: list[str], seed: int, longest: float, started: Callable[[int], None]
) -> None:
    """Runs night after night, each under a namespace of its own, until the press has been killed ``kills`` times.

    Each night ends when the press ends by itself. Everything must be published then.
    """
    chance = random.Random(seed)
    instants = random_instants(chance, longest)
    night = 0
    while len(chaos.press_kills) < kills:
        night += 1
        namespace = f"night-{night}"
        started(night)
        line = {"repo": MODEL, "formats": ["gguf"], "variants": {"gguf": ladder}}
        chaos.operator.write_catalog([line], calibration={"samples": 2, "length": 128})
        done = False
        while not done:
            enough = len(chaos.press_kills) >= kills
            hub_ends = AtRequest("upload", chance.randint(1, 4), chance.random()) if chance.random() < 0.4 else None
            done = chaos.live(None if enough else next(instants), hub_ends, QUANTPRESS_NAMESPACE=namespace)
        assert_published_once(chaos.operator.folder / "hub", f"{namespace}/{REPO}", ladder)
        manifests = read_manifests(chaos.operator.api, namespace, MODEL)
        assert why_outdated(chaos.operator.api, f"{namespace}/{COMPARISON}", manifests) is None
        home = chaos.operator.folder / "home"
        assert not list((home / "work").glob("*"))
        assert not list(home.rglob("*.tmp"))


@pytest.mark.slow
def test_six_kills(chaos: Chaos) -> None:
    carry_on(chaos, 6, LADDER[:2], seed=1, longest=10.0, started=lambda _: None)
    assert len(chaos.press_kills) == 6
    assert sum(isinstance(kill, AtRequest) and kill.kind != "download" for kill in chaos.press_kills) >= 3


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(3 * 3600)
def test_fifty_kills(chaos: Chaos) -> None:

    def tell(night: int) -> None:
        print(f"night {night} begins after {chaos.summary()}", flush=True)

    carry_on(chaos, 50, LADDER, seed=50, longest=15.0, started=tell)
    print(chaos.summary())
    assert len(chaos.press_kills) == 50
    assert sum(isinstance(kill, AtRequest) and kill.kind != "download" for kill in chaos.press_kills) >= 10
    assert chaos.hub_kills
