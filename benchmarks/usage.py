"""Runs one command and writes its CPU time, wall time and peak memory to a file.

Run it as ``python -I -S usage.py RESULT.json COMMAND…``. The measuring program is small and separate, because the peak
memory of a child includes the memory that its parent had at the fork (see :mod:`quantpress.machine.peak_memory`). It
imports nothing from this repository. Its exit code is the command's exit code.
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
