"""Keeps the whole logs of failed children in the home folder, in ``logs``.

A child's own folder is removed when the work is done or the model changes, and a second try overwrites the log.
"""

from __future__ import annotations

import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

from quantpress.files import atomic

#: The folders of the home folder in which children work, and the folder that lies beside them in every home folder
#: (quantpress.machine.workspace, quantpress.machine.scratch).
_PLACES_OF_WORK, _BESIDE = ("work", "scratch"), "locks"
#: How many logs are kept, the newest. A log of a press has some 10 to 500 kB.
_KEPT = 200
_LONGEST_NAME = 200


def keep_log(log: Path) -> Path:
    """Copies a failed child's log to ``logs`` in the home folder, and returns the copy's path.

    The copy's name says when the child failed and in which folder it worked. If the child did not work in a home folder
    or the copy fails, returns ``log``.
    """
    places = (folder for folder in log.parents if folder.name in _PLACES_OF_WORK)
    home = next((place.parent for place in places if (place.parent / _BESIDE).is_dir()), None)
    if home is None:
        return log
    of = "--".join(log.parent.relative_to(home).parts[1:])
    name = re.sub(r"[^A-Za-z0-9._-]", "_", of)[-_LONGEST_NAME:]
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    when = time.strftime("%Y%m%d-%H%M%S", time.localtime(seconds))
    kept = home / "logs" / f"{when}-{nanoseconds:09d}-{name}.log"
    try:
        with atomic(kept) as temporary:
            shutil.copyfile(log, temporary)  # no link, because a second try writes the log anew
    except OSError:
        return log
    for old in sorted(kept.parent.glob("*.log"))[:-_KEPT]:
        with suppress(OSError):
            old.unlink()
    return kept
