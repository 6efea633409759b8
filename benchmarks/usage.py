"""Runs one command and writes its CPU time, wall time and peak memory: ``python -I -S usage.py RESULT.json COMMAND…``.

This is a separate, small program because a child's peak memory includes what its parent had when it forked (see
:mod:`quantpress.machine.peak_memory`). It imports nothing of this repository. The exit code is the command's.
"""

import json
import os
import sys
import time


def main() -> int:
    result, *command = sys.argv[1:]
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        os.execvp(command[0], command)
    _, status, usage = os.wait4(child, 0)
    took = {
        "cpu": usage.ru_utime + usage.ru_stime,
        "wall": time.monotonic() - begun,
        "peak": usage.ru_maxrss * 1024,
    }
    with open(result, "w", encoding="utf-8") as stream:  # noqa: PTH123 - pathlib would make this program larger
        json.dump(took, stream)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
