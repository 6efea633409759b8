"""SIGKILL hits the press and the Hub at random instants, and the Hub's disk fills up. Every variant is published once,
every revision was whole.

``make chaos`` kills 50 times, which takes long. The test that runs with the other tests kills six times, and the Hub's
disk stays as it is. The test of the full disk itself lets a client upload, not a press.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from quantpress.comparison.report import read_manifests
from quantpress.comparison.state import why_outdated
from quantpress.localhub.integrity import check_objects
from quantpress.localhub.server import running_hub
from tests.faults.chaos import AtRequest, Chaos, MortalHub, Trap, random_instants
from tests.support.disks import disk_of
from tests.support.history import assert_published_once
from tests.support.line import bad_line
from tests.support.operating import Operator, PrefectServer

MODEL = "upstream/Tiny-Instruct"
REPO, COMPARISON = "Tiny-Instruct-GGUF", "Tiny-Instruct-quantized"
LADDER = ["Q4_0", "Q4_K_M", "Q5_0", "Q6_K", "Q8_0"]


@contextmanager
def chaos_with(root: Path, folder: Path, source: Path, prefect: PrefectServer | None) -> Iterator[Chaos]:
    """Runs a Hub in ``root`` that has the source, behind a line. All else goes to ``folder``."""
    with running_hub(root) as hub:
        token = hub.create_token("press", "write")
        Operator(folder, hub, token).upload_source(MODEL, source)
    with bad_line("") as line:
        mortal = MortalHub(root, line)
        operator = Operator(folder, replace(mortal.now, endpoint=line.endpoint), token, prefect)
        try:
            yield Chaos(operator, mortal, line)
        finally:
            mortal.close()


@pytest.fixture
def chaos(tmp_path: Path, tiny_model: Path, prefect_api: PrefectServer) -> Iterator[Chaos]:
    with chaos_with(tmp_path / "hub", tmp_path, tiny_model, prefect_api) as chaos:
        yield chaos


@pytest.fixture
def chaos_on_a_disk(tmp_path: Path, tiny_model: Path, prefect_api: PrefectServer) -> Iterator[Chaos]:
    """The Hub has a disk of its own, which the test can fill: three times what the source and its ladder take."""
    with disk_of(tmp_path / "disk", 1024) as disk, chaos_with(disk / "hub", tmp_path, tiny_model, prefect_api) as chaos:
        yield chaos


@dataclass(frozen=True)
class Plan:
    """How many kills of the press a test waits for, on which ladder, from which seed.

    A press is killed within ``longest`` seconds of its start. In the share ``full_disks`` of all runs, the Hub's disk
    fills up.
    """

    kills: int
    ladder: list[str]
    seed: int
    longest: float
    full_disks: float


def carry_on(chaos: Chaos, plan: Plan, started: Callable[[int], None]) -> None:
    """Runs night after night, each under a namespace of its own, until the press has been killed often enough.

    Each night ends when the press ends by itself. Everything must be published then.
    """
    chance, disk_chance = random.Random(plan.seed), random.Random(plan.seed)
    instants = random_instants(chance, plan.longest)
    night = 0
    while len(chaos.press_kills) < plan.kills:
        night += 1
        namespace = f"night-{night}"
        started(night)
        line = {"repo": MODEL, "formats": ["gguf"], "variants": {"gguf": plan.ladder}}
        chaos.operator.write_catalog([line], calibration={"samples": 2, "length": 128})
        done = False
        while not done:
            press_ends = None if len(chaos.press_kills) >= plan.kills else next(instants)
            hub_ends = AtRequest("upload", chance.randint(1, 4), chance.random()) if chance.random() < 0.4 else None
            disk_fills = None
            if disk_chance.random() < plan.full_disks:
                # A Hub that was killed cannot start again while its disk is full.
                hub_ends, disk_fills = None, full_disk(disk_chance)
            done = chaos.live(press_ends, hub_ends, disk_fills, QUANTPRESS_NAMESPACE=namespace)
        assert_published_once(chaos.hub.root, f"{namespace}/{REPO}", plan.ladder)
        manifests = read_manifests(chaos.operator.api, namespace, MODEL)
        assert why_outdated(chaos.operator.api, f"{namespace}/{COMPARISON}", manifests) is None
        home = chaos.operator.folder / "home"
        assert not list((home / "work").glob("*"))
        assert not list(home.rglob("*.tmp"))


def full_disk(chance: random.Random) -> AtRequest:
    """Returns an instant within an upload, or before a commit."""
    if chance.random() < 0.7:
        return AtRequest("upload", chance.randint(1, 3), chance.random())
    return AtRequest("commit", 1, 0.0)


@pytest.mark.slow
def test_six_kills(chaos: Chaos) -> None:
    carry_on(chaos, Plan(6, LADDER[:2], seed=1, longest=10.0, full_disks=0.0), started=lambda _: None)
    assert len(chaos.press_kills) == 6
    assert sum(isinstance(kill, AtRequest) and kill.kind != "download" for kill in chaos.press_kills) >= 3


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(3 * 3600)
def test_fifty_kills(chaos_on_a_disk: Chaos) -> None:
    chaos = chaos_on_a_disk

    def tell(night: int) -> None:
        print(f"night {night} begins after {chaos.summary()}", flush=True)

    carry_on(chaos, Plan(50, LADDER, seed=50, longest=15.0, full_disks=0.2), started=tell)
    print(chaos.summary())
    assert len(chaos.press_kills) == 50
    assert sum(isinstance(kill, AtRequest) and kill.kind != "download" for kill in chaos.press_kills) >= 10
    assert chaos.hub_kills
    assert chaos.full_disks


def test_a_client_goes_on_when_the_hubs_disk_has_room_again(tmp_path: Path) -> None:
    """The event itself, with a client in the place of a press: the disk fills up in the middle of the second part."""
    weights = random.Random(1).randbytes(20_000_000)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "config.json").write_text("{}")
    with disk_of(tmp_path / "disk", 64) as disk, chaos_with(disk / "hub", tmp_path, tmp_path / "source", None) as chaos:
        trap = Trap(AtRequest("upload", 2, 0.5), chaos.hub.fill_disk)
        chaos.line.watch = trap.watch
        api = chaos.operator.api

        def upload() -> None:
            api.upload_file(repo_id=MODEL, path_in_repo="model.safetensors", path_or_fileobj=weights)

        with pytest.raises(RuntimeError) as failed:
            upload()
        assert trap.sprung.is_set()
        assert "507" in str(failed.value.__cause__)
        assert list((disk / "hub" / "incoming").iterdir()) == []
        chaos.hub.empty_disk()
        upload()
        chaos.hub.kill()
        chaos.hub.close()
        chaos.hub.start()
        got = api.hf_hub_download(MODEL, "model.safetensors", local_dir=tmp_path / "got")
        assert Path(got).read_bytes() == weights
        assert list(check_objects(disk / "hub")) == []
