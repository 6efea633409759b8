"""The token, as a hostile child process looks for it."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

TOKEN = "hf_" + "s" * 37
#: A press that starts a child. It prints what its Hub client sends as token, and what the child found.
PRESS = """
import sys
from pathlib import Path
from pydantic import BaseModel
from quantpress.hub.client import hub_client
from quantpress.hub.token import hold_token
from quantpress.machine.child import run_child

class Nothing(BaseModel):
    pass

class Found(BaseModel):
    found: dict[str, str]

hold_token()
print(hub_client("http://127.0.0.1:9").token)
print(run_child("hostile", Nothing(), Found, Path("job")).model_dump_json())
"""
#: Looks into all processes above itself. "hidden" stands for a file that the kernel does not let it read.
HOSTILE = """
import json, os, sys
from pathlib import Path
found, process = {}, os.getppid()
for name in ("environ", "mem"):
    try:
        with open(f"/proc/{process}/{name}", "rb") as stream:
            found[name] = stream.read().decode(errors="replace") if name == "environ" else "open"
    except OSError:
        found[name] = "hidden"
found["own"] = json.dumps(dict(os.environ))
Path(sys.argv[2]).write_text(json.dumps({"found": found}))
"""
_PR_CAPBSET_DROP = 24  # linux/prctl.h


def without_privileges() -> None:
    """Takes away what root may do besides owning files, such as looking into processes that forbid it. A user without
    privileges could not read the tests' Python, which lies in root's home folder."""
    libc = ctypes.CDLL(None)
    for capability in range(64):
        libc.prctl(_PR_CAPBSET_DROP, capability)


def press(folder: Path, privileged: bool) -> tuple[str, dict[str, str]]:
    (folder / "hostile.py").write_text(HOSTILE)
    path = os.pathsep.join([str(Path(__file__).parents[3]), str(folder)])
    done = subprocess.run(
        [sys.executable, "-c", PRESS],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "HF_TOKEN": TOKEN, "HUGGING_FACE_HUB_TOKEN": TOKEN},
        preexec_fn=None if privileged else without_privileges,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    sent, found = done.stdout.splitlines()
    return sent, json.loads(found)["found"]


def test_a_child_cannot_look_into_the_press(tmp_path: Path) -> None:
    sent, found = press(tmp_path, privileged=False)
    assert sent == TOKEN
    assert (found["environ"], found["mem"]) == ("hidden", "hidden")
    assert TOKEN not in found["own"]


def test_what_root_reads_of_the_environment_has_no_token(tmp_path: Path) -> None:
    sent, found = press(tmp_path, privileged=True)
    assert sent == TOKEN
    assert TOKEN not in found["environ"]
    assert "HF_TOKEN=\0" in found["environ"] or found["environ"] == "hidden"
