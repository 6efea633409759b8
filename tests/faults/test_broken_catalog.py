"""A catalog of forty sources, twenty of them broken. The night makes the healthy twenty and names the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from quantpress.localhub.server import running_hub
from tests.support.broken_sources import BROKEN, healthy
from tests.support.operating import Operator, PrefectServer
from tests.support.planned import Press

HEALTHY = [f"up/Healthy-{number}" for number in range(20)]


@pytest.fixture(scope="module")
def forty(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, prefect_api: PrefectServer) -> Iterator[Operator]:
    """The forty sources are on a Hub, and broken ones stand between healthy ones in the catalog."""
    folder = tmp_path_factory.mktemp("forty")
    with running_hub(folder / "hub") as hub:
        operator = Operator(folder, hub, hub.create_token("press", "write"), prefect_api)
        press = Press(hub, operator.api, folder / "home")
        lines = []
        for seed, (repo_id, broken) in enumerate(zip(HEALTHY, BROKEN, strict=True)):
            press.put(repo_id, healthy(tiny_model, seed))
            press.put(f"up/{broken.name}", broken.spoil(healthy(tiny_model, 0)))
            lines += [f"up/{broken.name}", repo_id]
        operator.write_catalog(
            lines, formats=["gguf"], variants={"gguf": ["Q8_0"]}, calibration={"samples": 2, "length": 128}
        )
        yield operator


def test_the_plan_names_what_it_can_see(forty: Operator) -> None:
    planned = {step["model"]: (step["action"], step["reason"]) for step in forty.plan()}
    assert {model: planned[model] for model in HEALTHY} == dict.fromkeys(HEALTHY, ("press", "new"))
    for broken in BROKEN:
        action, reason = planned[f"up/{broken.name}"]
        assert action == ("block" if broken.planned else "press"), (broken.name, reason)
        if broken.planned:
            assert broken.said in reason
            assert "\n" not in reason


@pytest.mark.chaos
def test_the_night_makes_the_healthy_and_names_the_others(forty: Operator) -> None:
    """Takes minutes, so ``make chaos`` runs it."""
    code, _, err = forty.call("run", QUANTPRESS_CHILD_MEMORY="3GB")
    assert code == 1, err
    for model in HEALTHY:
        assert forty.api.file_exists(f"{model.replace('up/', 'press/')}-GGUF", f"{model[3:]}-Q8_0.gguf"), model
    lines = [line for line in err.splitlines() if line.startswith("quantpress: ")]
    for broken in BROKEN:
        (line,) = [each for each in lines if each.startswith(f"quantpress: up/{broken.name}")]
        assert broken.said in line, line
        assert not forty.api.repo_exists(f"press/{broken.name}-GGUF")
    assert forty.call("plan")[0] == 0
