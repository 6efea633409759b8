"""What Prefect does with a flow that takes too long."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from flows.nightly import nightly
from flows.press_model import press_model
from tests.support.operating import PrefectServer

#: A flow whose child hangs. It prints the flow's state, and whether the child still runs.
STUCK = """
import os
from pathlib import Path
from prefect import flow
from pydantic import BaseModel
from flows.stage import stage
from quantpress.machine.child import run_child

class Nothing(BaseModel):
    pass

@stage("stuck")
def stuck() -> None:
    run_child("hangs", Nothing(), Nothing, Path("job"))

@flow(timeout_seconds=6)
def press() -> None:
    stuck()

state = press(return_state=True)
child = int(Path("job/pid").read_text())
print(state.name, Path(f"/proc/{child}").exists())
"""


def test_each_flow_has_a_deadline() -> None:
    assert (nightly.timeout_seconds, press_model.timeout_seconds) == (604_800, 604_800)


def test_a_flow_that_takes_too_long_ends_its_child(prefect_api: PrefectServer, tmp_path: Path) -> None:
    (tmp_path / "hangs.py").write_text("import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(600)\n")
    path = os.pathsep.join([str(Path(__file__).parents[2]), str(tmp_path)])
    environment = os.environ | {"PYTHONPATH": path, **prefect_api.environment}
    done = subprocess.run(
        [sys.executable, "-c", STUCK], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "TimedOut False", done.stderr
