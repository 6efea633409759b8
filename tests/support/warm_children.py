"""Starts the server of warm children (``warm/server.py``), and lets the press's children use it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quantpress.machine.child import child_environment

_FOLDER = Path(__file__).with_name("warm")


@contextmanager
def warm(address: Path) -> Iterator[None]:
    """Children that start before the server listens on ``address`` import their libraries themselves."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_FOLDER), os.environ.get("PYTHONPATH")]))
    server = subprocess.Popen(
        [sys.executable, _FOLDER / "server.py", address],
        env=child_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.environ["QUANTPRESS_WARM_CHILDREN"] = str(address)
    try:
        yield
    finally:
        del os.environ["QUANTPRESS_WARM_CHILDREN"]
        server.kill()
        server.wait()
