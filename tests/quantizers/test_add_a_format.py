"""Follows docs/add-a-format.md to the letter: writes its files, runs its commands and compares their output."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from quantpress.localhub.server import running_hub
from quantpress.record.manifest import parse_manifest
from tests.support.operating import Operator, PrefectServer

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[2] / "docs" / "add-a-format.md").read_text(encoding="utf-8")
#: Matches a line that begins with a file's name, and the first code block after it.
FILE = re.compile(r"^`(?P<name>[\w./-]+)`:.*?^```\w+\n(?P<content>.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```(?P<kind>bash|text)\n(?P<content>.*?)^```$", re.MULTILINE | re.DOTALL)


def comparable(output: str) -> list[str]:
    """Returns the output's lines without what depends on the processor: the figures and widths of the run's table."""
    plan, end, run = output.partition("variants to make")
    assert end
    masked = re.sub(r"[\d.]+ ± [\d.]+|0\.\d+", "#", run)
    return [line.rstrip() for line in (*plan.splitlines(), *re.sub(r"[ ─━]+", " ", masked).splitlines())]


def test_the_page_is_followed(tiny_model: Path, prefect_api: PrefectServer, tmp_path: Path) -> None:
    files = {found["name"]: found["content"] for found in FILE.finditer(PAGE)}
    blocks = {found["kind"]: found["content"] for found in BLOCK.finditer(PAGE)}
    assert len(files) == 4
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    with running_hub(tmp_path / "hub") as hub:
        operator = Operator(tmp_path, hub, hub.create_token("press", "write"), prefect_api)
        operator.upload_source("upstream/Tiny-Instruct", tiny_model)
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-e", "-c", blocks["bash"]],
            cwd=tmp_path,
            env=operator.environment(PATH=programs, COLUMNS="110", QUANTPRESS_THREADS="2"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        shown = done.stdout.replace(hub.endpoint, "http://127.0.0.1:7860")
        assert comparable(shown) == comparable(blocks["text"])

        published = Path(operator.api.hf_hub_download("press/Tiny-Instruct-Float8-Cast", "quantpress.json"))
        card = Path(operator.api.hf_hub_download("press/Tiny-Instruct-Float8-Cast", "README.md")).read_text()
    (entry,) = parse_manifest(published.read_bytes(), "here").entries
    assert entry.recipe.quantizer == "float8-cast 1.0"
    assert entry.artifact.tensor_types == {"float8_e4m3": 7_077_888, "float16": 28_314_432}
    assert entry.evaluation.divergence is not None
    assert 0 < entry.evaluation.divergence.mean < 0.1
    assert "with its projections rounded to 8-bit floats" in card
