"""A failure gives one clear line and an exit code, and leaves nothing half-published."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from quantpress.localhub.admin import set_gated
from tests.support.operating import Operator

pytestmark = pytest.mark.slow

MODEL = "upstream/Tiny-Instruct"


@pytest.fixture(scope="module", autouse=True)
def source(operator: Operator, tiny_model: Path) -> str:
    return operator.upload_source(MODEL, tiny_model)


def explained(err: str) -> list[str]:
    """Returns the command line's own lines. Prefect logs to the same stream."""
    return [line for line in err.splitlines() if line.startswith("quantpress: ")]


def test_a_typo_is_found_before_anything_runs(operator: Operator) -> None:
    operator.catalog.write_text("models:\n  - repo: a/M\n    formatz: [gguf]\n")
    for command in ("check", "plan", "run"):
        code, out, err = operator.call(command)
        assert (code, out) == (2, "")
        assert err == "quantpress: catalog.yaml:3: unknown key 'formatz'; did you mean 'formats'?\n"


def test_a_model_that_is_not_in_the_catalog_is_bad_input(operator: Operator) -> None:
    operator.write_catalog([MODEL])
    for command in ("plan", "run"):
        code, out, err = operator.call(command, "--only", "upstream/Tiny-Instrct")
        assert (code, out) == (2, "")
        assert err == f"quantpress: upstream/Tiny-Instrct is not in the catalog; did you mean {MODEL!r}?\n"


def test_a_missing_model_is_blocked(operator: Operator) -> None:
    operator.write_catalog(["upstream/Nowhere"])
    code, _, err = operator.call("run")
    assert code == 1
    assert explained(err) == [
        f"quantpress: upstream/Nowhere: blocked: not found: {operator.hub.endpoint} has no model upstream/Nowhere "
        "(or it is private and needs a token)"
    ]


def test_a_gated_model_is_blocked(operator: Operator, tiny_model: Path) -> None:
    operator.upload_source("upstream/Gated", tiny_model)
    set_gated(operator.hub.root, "upstream/Gated", "manual")
    operator.write_catalog(["upstream/Gated"])
    # This token was not granted access. The owner's token would be let in.
    code, out, err = operator.call("plan", "--json", HF_TOKEN=operator.hub.create_token("stranger", "read"))
    assert code == 0, err
    assert [step["reason"] for step in json.loads(out)] == [
        f"blocked: gated: accept the terms at {operator.hub.endpoint}/upstream/Gated and give a token (hf auth login)"
    ]


def test_an_unreachable_hub_is_one_line(operator: Operator) -> None:
    operator.write_catalog([MODEL])
    code, _, err = operator.call("plan", QUANTPRESS_SOURCE_ENDPOINT="http://127.0.0.1:9", QUANTPRESS_PATIENCE="0")
    assert code == 1
    (line,) = err.splitlines()
    assert line.startswith(f"quantpress: looking up {MODEL} on http://127.0.0.1:9: ")


def test_a_full_disk_is_found_before_the_download(operator: Operator, small_disk: Path) -> None:
    operator.write_catalog([{"repo": MODEL, "formats": ["gguf"], "variants": {"gguf": ["Q8_0"]}}])
    code, _, err = operator.call("run", QUANTPRESS_HOME=str(small_disk))
    assert code == 1
    (line,) = explained(err)
    assert line.startswith(f"quantpress: {MODEL}: {small_disk}: 0.3 GB of disk are needed and 0.0 GB are free; ")
    assert line.endswith("free some, or set QUANTPRESS_HOME to a larger disk")
    assert not operator.api.repo_exists("press/Tiny-Instruct-GGUF")
    assert not list((small_disk / "sources").glob("**/*.safetensors"))


def test_a_killed_child_fails_its_variant_alone(operator: Operator) -> None:
    """If the child of a wave (rungs that are made together) is killed, the rungs are made one by one. Only a rung (a
    GGUF variant) whose own child is killed too fails. A blocked format has no repository, and no card links to one.
    """
    variants = {"gguf": ["Q8_0", "Q4_K_M", "Q5_0"], "exl3": ["4.0bpw"]}
    line = {"repo": MODEL, "formats": ["gguf", "exl3"], "variants": variants}
    operator.write_catalog([line], calibration={"samples": 2, "length": 128})
    run = operator.start("run")
    assert _kill_child("wave-*", run, operator.folder)
    assert _kill_child("Q4_K_M-*", run, operator.folder)
    _, err = run.communicate(timeout=600)
    assert run.returncode == 1
    failure = err[err.rindex(f"quantpress: {MODEL} gguf Q4_K_M: quantizers.job was killed by SIGKILL") :]
    assert "Q5_0" not in failure
    files = operator.api.list_repo_files("press/Tiny-Instruct-GGUF")
    assert sorted(file for file in files if file.endswith(("Q8_0.gguf", "Q5_0.gguf", "Q4_K_M.gguf"))) == [
        "Tiny-Instruct-Q5_0.gguf",
        "Tiny-Instruct-Q8_0.gguf",
    ]
    actions = {step["variant"]: step["action"] for step in operator.plan() if step["variant"]}
    assert actions == {"Q8_0": "keep", "Q4_K_M": "press", "Q5_0": "keep", "4.0bpw": "block"}
    card = operator.api.hf_hub_download("press/Tiny-Instruct-GGUF", "README.md", cache_dir=operator.folder / "look")
    assert "exl3" not in Path(card).read_text()


def _kill_child(job_folder: str, run: subprocess.Popen[str], folder: Path) -> bool:
    """Kills the child process that works in ``job_folder`` (a pattern) as soon as it exists. Returns whether it did."""
    while run.poll() is None:
        for job in (folder / "home").glob(f"work/*/gguf/{job_folder}/job.json"):
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    command = (process / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if any(part.endswith(str(job.relative_to(folder)).encode()) for part in command):
                    os.kill(int(process.name), signal.SIGKILL)
                    return True
        time.sleep(0.01)
    return False


def test_nothing_but_finished_work_is_left(operator: Operator) -> None:
    """After a clean run the work folder is gone; the source stays for the next night."""
    line = {"repo": MODEL, "formats": ["gguf"], "variants": {"gguf": ["Q8_0", "Q4_K_M", "Q5_0"]}}
    operator.write_catalog([line], calibration={"samples": 2, "length": 128})
    code, _, err = operator.call("run")
    assert code == 0, err
    assert not list((operator.folder / "home" / "work").glob("*"))
    assert list((operator.folder / "home" / "sources").glob("*/model.safetensors"))
    shutil.rmtree(operator.folder / "home")
