"""Tells how much memory programs can have: what the kernel estimates, but at most what the limits of this process's
control groups leave."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from quantpress.errors import Refused

_AVAILABLE = re.compile(r"^MemAvailable: +(\d+) kB$", re.MULTILINE)
#: Bytes of cached file pages that were not used lately. The kernel frees these pages before it refuses memory.
_RECLAIMABLE = re.compile(r"^inactive_file (\d+)$", re.MULTILINE)
#: The line of ``/proc/self/cgroup`` that names this process's control group of version 2 (cgroups(7)).
_OWN_GROUP = re.compile(r"^0::/(.*)$", re.MULTILINE)


def available_memory(
    meminfo: Path = Path("/proc/meminfo"),
    own_group: Path = Path("/proc/self/cgroup"),
    groups: Path = Path("/sys/fs/cgroup"),
) -> int:
    """Returns the bytes that programs can have without swapping or being killed. Respects a container's limit.

    ``groups`` is the folder where control groups of version 2 are mounted. Raises :class:`Refused` if the kernel does
    not say how much memory is available.
    """
    found = _AVAILABLE.search(meminfo.read_text(encoding="ascii"))
    if found is None:
        raise Refused(f"{meminfo} does not say how much memory is available: Linux 3.14 or newer is needed")
    return min([int(found[1]) * 1024, *_left_in_groups(own_group, groups)])


def total_memory() -> int:
    """Returns the bytes of the machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _left_in_groups(own_group: Path, groups: Path) -> Iterator[int]:
    """Yields the bytes that are left below the limit of this process's control group, and below the limit of each group
    around it. Skips groups without a limit."""
    found = _OWN_GROUP.search(own_group.read_text()) if own_group.exists() else None
    # Within a container, this path can be the path on the host, which does not exist in the container. The container's
    # own group is then mounted at ``groups`` itself.
    own = groups / found[1] if found else groups
    for group in (own, *own.parents):
        if not group.is_relative_to(groups):
            return
        limit, used = group / "memory.max", group / "memory.current"
        if not limit.is_file() or not used.is_file() or limit.read_text().strip() == "max":
            continue
        reclaimable = _RECLAIMABLE.search((group / "memory.stat").read_text())
        taken = int(used.read_text()) - (int(reclaimable[1]) if reclaimable else 0)
        yield max(0, int(limit.read_text()) - taken)
