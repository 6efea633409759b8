"""Two presses run on the same catalog at once. Each variant is made at most twice and published once. Both succeed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quantpress.localhub.server import running_hub
from tests.support.history import assert_published_once
from tests.support.operating import Operator, PrefectServer

pytestmark = pytest.mark.slow

MODEL = "upstream/Tiny-Instruct"
REPO = "press/Tiny-Instruct-GGUF"
LADDER = ["Q4_0", "Q8_0"]


@pytest.mark.parametrize("homes", [["home", "home"], ["home", "other"]], ids=["same home", "two homes"])
def test_two_presses(tmp_path: Path, tiny_model: Path, prefect_api: PrefectServer, homes: list[str]) -> None:
    with running_hub(tmp_path / "hub") as hub:
        operator = Operator(tmp_path, hub, hub.create_token("press", "write"), prefect_api)
        operator.upload_source(MODEL, tiny_model)
        line = {"repo": MODEL, "formats": ["gguf"], "variants": {"gguf": LADDER}}
        operator.write_catalog([line], calibration={"samples": 2, "length": 128})
        presses = [operator.start("run", "--json", QUANTPRESS_HOME=str(tmp_path / home)) for home in homes]
        results = [press.communicate(timeout=600) for press in presses]
        assert [press.returncode for press in presses] == [0, 0], [err for _, err in results]
        assert_published_once(hub.root, REPO, LADDER)
        published = [row["variant"] for out, _ in results for report in json.loads(out) for row in report["variants"]]
        assert sorted(published) == LADDER
        for home in set(homes):
            assert not list((tmp_path / home / "work").glob("*"))
